"""What a damaged tar holds, read by the letter of `docs/design.md`, section 9: a second opinion on rayclean's reader.

It shares no code with `rayclean/shards`, nor with Python's tarfile: headers are cut up here, by the formats' rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

BLOCK = 512
MOST_HEADERS, MOST_HEADER_BYTES = 16, 2**20
SEARCHED = 2**20
NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (329, 337), (337, 345))


class Content(NamedTuple):
    """A member: its extension, where its content lies, and whether it is a link that has none in the tar."""

    extension: str
    offset: int
    size: int
    is_link: bool = False


@dataclass
class Reading:
    """What is in a tar.

    Attributes:
        samples: key and members of each, in order; of a broken tar the last one is the one at the break.
        is_broken: it breaks off.
        is_tar: it has a header at all.
    """

    samples: list[tuple[str, list[Content]]] = field(default_factory=list)
    is_broken: bool = False
    is_tar: bool = True
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # of files, which hard links name

    def link(self, name: bytes, target: bytes | None) -> None:
        """Puts a link to its sample: a hard one has the content of the file before it that it names."""
        place = self.places.get(target) if target is not None else None
        self.add(name, *(place or (0, 0)), is_link=place is None)

    def add(self, name: bytes, offset: int, size: int, is_link: bool = False) -> None:
        """Puts a member to its sample."""
        split = key_of(name)
        if split is None:
            return
        key, extension = split
        if not self.samples or self.samples[-1][0] != key or extension in {c.extension for c in self.samples[-1][1]}:
            self.samples.append((key, []))
        self.samples[-1][1].append(Content(extension, offset, size, is_link))


class Broken(Exception):
    """Here the tar breaks off."""


def read_tar(file: BinaryIO) -> Reading:
    """Reads a tar up to its end, or to where it breaks off."""
    reading = Reading(is_tar=has_header(file))
    if not reading.is_tar:
        return reading
    try:
        _read(file, reading)
    except Broken:
        reading.is_broken = True
    return reading


def _read(file: BinaryIO, reading: Reading) -> None:
    end, position = file.seek(0, 2), 0
    common: dict[bytes, bytes] = {}
    common_bytes = 0
    while True:
        said: dict[bytes, bytes] = {}
        headers = header_bytes = 0
        while (block := _block(file, position))[156:157] in (b"L", b"K", b"x", b"X", b"g") and any(block):
            kind, size = block[156:157], _number(block[124:136])
            headers, header_bytes = headers + 1, header_bytes + size
            if size < 0 or headers > MOST_HEADERS or header_bytes > MOST_HEADER_BYTES or position + BLOCK + size > end:
                raise Broken
            file.seek(position + BLOCK)
            text = file.read(size)
            if kind in (b"L", b"K"):
                said.setdefault(b"path" if kind == b"L" else b"linkpath", text.split(b"\0")[0])
            elif kind == b"g":
                common_bytes += size
                if common_bytes > MOST_HEADER_BYTES:
                    raise Broken
                common |= _records(text)
            else:
                said = _records(text) | said
            position += BLOCK + -(-size // BLOCK) * BLOCK
        if not any(block):
            if said:
                raise Broken
            _check_zeros(file, position)
            return
        said = common | said
        kind, name = block[156:157], said.get(b"path", _name(block))
        size = _number(block[124:136])
        if size < 0 or kind == b"S" or any(record.startswith(b"GNU.sparse.") for record in said):
            raise Broken
        if b"size" in said:
            if not re.fullmatch(rb"[0-9]{1,18}", said[b"size"]):
                raise Broken
            size = int(said[b"size"])
        is_file = kind in (b"0", b"7") or (kind == b"\0" and not _text(block[:100]).endswith(b"/"))
        if kind in (b"1", b"2"):
            target = said.get(b"linkpath", _text(block[157:257]))
            reading.link(name, target if kind == b"1" else None)
        if is_file:
            reading.places[name] = position + BLOCK, size
            reading.add(name, position + BLOCK, size)
            if position + BLOCK + size > end:
                raise Broken
        has_content = is_file or kind not in (b"\0", *(b"%d" % i for i in range(1, 7)))
        position += BLOCK + (-(-size // BLOCK) * BLOCK if has_content else 0)


def _block(file: BinaryIO, position: int) -> bytes:
    """A header, or zeros."""
    if position > file.seek(0, 2):
        raise Broken
    file.seek(position)
    block = file.read(BLOCK)
    if len(block) < BLOCK or (any(block) and not is_header(block)):
        raise Broken
    return block


def is_header(block: bytes) -> bool:
    """Whether the checksum fits and all numbers are some."""
    try:
        for start, stop in NUMBERS:
            _any_number(block[start:stop])
        _number(block[124:136])
        stated = _any_number(block[148:156])
    except (Broken, ValueError):
        return False
    blank = block[:148] + b" " * 8 + block[156:]
    return stated in (sum(blank), sum(byte - 256 * (byte > 127) for byte in blank))


def _number(text: bytes) -> int:
    """A header's number: octal digits, or binary where the first byte says so."""
    if text[0] in (0x80, 0xFF):
        value = int.from_bytes(text[1:], "big")
        return value if text[0] == 0x80 else value - 256 ** (len(text) - 1)
    digits = _text(text).strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise Broken
    return int(digits or b"0", 8)


def _any_number(text: bytes) -> int:
    """A number on which no member depends, such as a time: any octal one that Python takes, 1_0 and 0o10 too."""
    return _number(text) if text[0] in (0x80, 0xFF) else int(_text(text).decode("ascii").strip() or "0", 8)


def _text(text: bytes) -> bytes:
    return text.split(b"\0")[0]


def _name(block: bytes) -> bytes:
    prefix, name = _text(block[345:500]), _text(block[:100])
    return prefix + b"/" + name if prefix else name


def _records(text: bytes) -> dict[bytes, bytes]:
    """A pax header's records: the length of each in digits, a blank, `name=value`, a line feed."""
    records = {}
    while text and text[0]:
        digits, blank, _ = text.partition(b" ")
        if not blank or not re.fullmatch(rb"[0-9]{1,7}", digits):
            raise Broken
        record, text = text[: int(digits)], text[int(digits) :]
        name, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) < int(digits) or not name or not equals or not value.endswith(b"\n"):
            raise Broken
        records[name] = value[:-1].rstrip(b"/") if name == b"path" else value[:-1]
    return records


def _check_zeros(file: BinaryIO, position: int) -> None:
    """Two blocks of zeros end a tar, and nothing follows; one is enough where there is nothing else."""
    if file.seek(0, 2) - position < 2 * BLOCK and position > 0:
        raise Broken
    file.seek(position)
    while piece := file.read(SEARCHED):
        if piece.strip(b"\0"):
            raise Broken


def has_header(file: BinaryIO) -> bool:
    """Whether a file is a tar, damaged or not: a header at its start or in the first MiB, or nothing but zeros."""
    file.seek(0)
    data = file.read(BLOCK + SEARCHED)
    first = data[:BLOCK]
    if first[257:262] == b"ustar" or (len(first) == BLOCK and not any(first)):
        return True
    blocks = (data[i : i + BLOCK] for i in range(0, len(data) - BLOCK + 1, BLOCK))
    return any(any(block) and is_header(block) for block in blocks)


def key_of(name: bytes) -> tuple[str, str] | None:
    """Key and extension by WebDataset's rule; None for a member that belongs to no sample."""
    text = name.decode("utf-8", "backslashreplace")
    folder, slash, base = text.rpartition("/")
    first = text.split("/")[0]
    stem, dot, extension = base.partition(".")
    if (first.startswith("__") and first.endswith("__") and len(first) >= 4) or not stem or not dot:
        return None
    return folder + slash + stem, extension.lower()
