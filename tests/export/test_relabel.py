"""A new label changes its own bytes and no others, and is read back as that label."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.errors import UnitError
from rayclean.export.relabel import relabelled

NAMES = ("cat", "dög", 'a "b" c')
CLASSES = ClassList(NAMES)
names_only = st.text("abcdef", min_size=1, max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
label_values = st.sampled_from([0, 1.0, "2", "cat", "dög", " 1 "])
SPACING = [(",", ":"), (", ", ": "), (" ,\n", "\t: ")]


@given(
    st.dictionaries(names_only, values, max_size=3),
    names_only,
    names_only,
    label_values,
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from(SPACING),
    st.integers(0, 2),
)
def test_json_keeps_all_but_the_label(
    rest: dict[str, Any],
    outer: str,
    inner: str,
    old: Any,
    indent: int | None,
    ascii_only: bool,
    spacing: tuple[str, str],
    label: int,
) -> None:
    tree = {**rest, outer: {**rest, inner: old}}
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii_only, separators=spacing)
    field = LabelField.parse(f"json:{outer}.{inner}")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        content = text.encode(encoding, "surrogatepass")
        changed = relabelled(content, field, CLASSES, label)
        found = json.loads(changed)
        assert ClassList(NAMES).index_of(_trimmed(found[outer][inner])) == label
        assert type(found[outer][inner]) is type(old)
        found[outer][inner] = old
        assert found == tree


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("content", "field", "label", "expected"),
    [
        (b"0", "cls", 2, b"2"),
        (b"cat", "cls", 1, "dög".encode()),
        (b" 1.0\n", "cls", 2, b" 2\n"),
        (b"\xef\xbb\xbf0\r\n", "cls", 1, b"\xef\xbb\xbf1\r\n"),
        (b'{"a": 1e999, "l":0 , "b": [1.10, "\\u00e9"]}', "json:l", 2, b'{"a": 1e999, "l":2 , "b": [1.10, "\\u00e9"]}'),
        (b'{"l": 0, "m": {"l": 0}}', "json:m.l", 1, b'{"l": 0, "m": {"l": 1}}'),
        (b'{"l": 0, "l": 0}', "json:l", 1, b'{"l": 0, "l": 1}'),  # parsers take the last
        (b'{"\\u006c": 0}', "json:l", 1, b'{"\\u006c": 1}'),
        (b'{"l": "cat"}\n', "json:l", 2, b'{"l": "a \\"b\\" c"}\n'),
        (b'{"l": 1.0}', "json:l", 2, b'{"l": 2.0}'),
        (b'{"l": [0]}', "json:l", 2, b'{"l": [2]}'),
        (b'{"l": [" cat "]}', "json:l", 1, b'{"l": ["d\\u00f6g"]}'),
    ],
)
def test_the_new_label_is_written_as_the_old_one_was(content: bytes, field: str, label: int, expected: bytes) -> None:
    assert relabelled(content, LabelField.parse(field), CLASSES, label) == expected


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"l"', b'{"l": {}}', b'{"l": 0', b"\xff", b'{"x": 1, "y"}'])
def test_a_member_without_the_label_is_an_error(content: bytes) -> None:
    with pytest.raises(UnitError, match=r"no label at l\.m"):
        relabelled(content, LabelField.parse("json:l.m"), CLASSES, 1)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_member_or_a_named_error(content: bytes) -> None:
    for field in ("cls", "json:a.b"):
        with contextlib.suppress(UnitError):
            relabelled(content, LabelField.parse(field), CLASSES, 1)
