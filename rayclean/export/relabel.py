"""A sample's label member with another label: only the label's own bytes change."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.errors import UnitError

_BLANKS = " \t\n\r"


def relabelled(content: bytes, field: LabelField, classes: ClassList, label: int) -> bytes:
    """The content of a member that holds a label, with another one in its place.

    The label is written as the old one was: by name or by number, in JSON as a text or as a number.

    Args:
        content: of the member with the field's extension; the catalog has read a label from it.
        field: where the label is.
        classes: that labels name.
        label: the new one.

    Raises:
        UnitError: there is no label in its place any more.
    """
    encoding = json.detect_encoding(content) if field.path else _text_encoding(content)
    try:
        text = content.decode(encoding, "surrogatepass")
        start, end = _span(text, field.path) if field.path else _trimmed(text)
        new = classes.written(label, json.loads(text[start:end]) if field.path else text[start:end])
    except (ValueError, RecursionError) as error:
        raise UnitError(f"no label at {'.'.join(field.path) or field.extension}: {error}") from error
    changed = text[:start] + (json.dumps(new) if field.path else str(new)) + text[end:]
    return changed.encode(encoding, "surrogatepass")


def _text_encoding(content: bytes) -> str:
    return "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"


def _trimmed(text: str) -> tuple[int, int]:
    start = len(text) - len(text.lstrip())
    return start, start + len(text.strip())


def _span(text: str, path: Sequence[str]) -> tuple[int, int]:
    """Where the value at a path begins and ends; of a field that is there twice the last one, as parsers do.

    Raises:
        ValueError: there is none.
    """
    start, end = _skip(text, 0), len(text.rstrip(_BLANKS))
    for name in path:
        inside = [span for field, span in _fields(text, start) if field == name]
        if not inside:
            raise ValueError(f"no field {name}")
        start, end = inside[-1]
    return start, end


def _fields(text: str, start: int) -> list[tuple[str, tuple[int, int]]]:
    """Names and spans of the values of the object that begins at `start`."""
    decoder, found = json.JSONDecoder(), []
    if text[start : start + 1] != "{":
        raise ValueError("not an object")
    at = _skip(text, start + 1)
    while text[at : at + 1] == '"':
        name, at = decoder.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + 1)  # past the colon
        _, end = decoder.raw_decode(text, begin)
        found.append((name, (begin, end)))
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    """Past blanks."""
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
