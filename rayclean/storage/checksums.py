"""Checksums that a run's files carry, so that each says whether it is whole.

XXH3 (64 bits), which runs at the speed of memory: it finds damage, not forgery. What is named by its content has a
SHA-256 besides. Files of older releases carry none and are read as they are.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rayclean.errors import DamagedFile
from rayclean.schema import Array

if TYPE_CHECKING:
    from xxhash import xxh3_64

CHUNK_BYTES = 2**20
DIGEST_BYTES = 8
NAME = "rayclean_xxh3"
_HEX = 16
log = logging.getLogger(__name__)

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


@functools.cache
def note_unchecked() -> None:
    """Says once per process that files without checksums are read."""
    log.warning("files of this run were written by an earlier release and have no checksums; they are read as they are")


def checksum(data: bytes | memoryview) -> xxh3_64:
    """The checksum of bytes, to which more can be added."""
    import xxhash  # not needed to score arrays in memory

    return xxhash.xxh3_64(data)


# --- JSON: the last key of a document. A list has none: a run's records are lists, and nothing is computed from them.

# Of a name with one wrong byte one of the halves still tells that a checksum was meant: here and below.
_LAST_KEY = re.compile(rb',?\n "(rayclean.{5}|.{8}_xxh3)": "(.{%d})"\n}\n\Z' % _HEX, re.DOTALL)


def seal_json(text: bytes) -> bytes:
    """A document, as `json.dumps(..., indent=1)` and a newline have it, with its checksum."""
    body = text.removesuffix(b"\n}\n") if text != b"{}\n" else b"{"
    comma = b"" if body == b"{" else b","
    return b'%s%s\n "%s": "%s"\n}\n' % (body, comma, NAME.encode(), checksum(body).hexdigest().encode())


def open_json(data: bytes, path: str) -> Any:
    """The content of a document, without its checksum.

    Raises:
        DamagedFile: it is not JSON, or not what was written.
    """
    found = _LAST_KEY.search(data)
    if found is not None:
        body = data[: found.start()]
        if found[1] != NAME.encode() or found[2] != checksum(body).hexdigest().encode():
            raise DamagedFile(path, "its checksum is another one")
        data = body + b"\n}\n"
    try:
        content = json.loads(data)
    except ValueError as e:
        raise DamagedFile(path, f"it is no whole JSON document: {e}") from e
    if found is None and isinstance(content, dict):
        if NAME in content:
            raise DamagedFile(path, "it does not end with its checksum")
        note_unchecked()
    return content


# --- safetensors: in the header, of each array in chunks, so that what is mapped is checked where it is read.

_BEGIN = b'{"__metadata__":{'
_SUMS = re.compile(rb'\{"__metadata__":\{"(rayclean_.{4}|.{9}xxh3)":"([^"]*)", *', re.DOTALL)


def seal_arrays(plain: bytes) -> bytes:
    """A safetensors file that has metadata, with checksums in its header; the arrays keep their alignment."""
    length = int.from_bytes(plain[:8], "little")
    header, body = plain[8 : 8 + length], memoryview(plain)[8 + length :]
    sums = base64.b64encode(
        b"".join(checksum(chunk).digest() for _, entry in _entries(header) for chunk in _chunks(body, entry))
    )
    field = b'"%s":"%s:%s",' % (NAME.encode(), checksum(header + sums).hexdigest().encode(), sums)
    field += b" " * (-len(field) % 8)
    header = _BEGIN + field + header.removeprefix(_BEGIN)
    return b"".join((len(header).to_bytes(8, "little"), header, body))


def plain_arrays(data: memoryview) -> tuple[bytes, bytes, memoryview]:
    """A safetensors file, in pieces, as it would be without checksums."""
    length = int.from_bytes(data[:8], "little")
    header = bytes(data[8 : 8 + length])
    sums = _SUMS.match(header)
    plain = header if sums is None else _BEGIN + header[sums.end() :]
    return len(plain).to_bytes(8, "little"), plain, data[8 + length :]


def check_arrays(data: memoryview, path: str) -> None:
    """Compares all of a safetensors file with its checksums, where it has any; another program's may have none.

    Raises:
        DamagedFile: it is not what was written.
    """
    if _SUMS.match(bytes(data[8 : 8 + int.from_bytes(data[:8], "little")])):
        arrays = CheckedArrays(data, path)
        for name in arrays:
            _ = arrays[name]


def _entries(header: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The arrays of a header in the order of their bytes."""
    entries = json.loads(header)
    entries.pop("__metadata__", None)
    return sorted(entries.items(), key=lambda item: item[1]["data_offsets"])


def _chunks(body: memoryview, entry: Mapping[str, Any]) -> Iterator[memoryview]:
    start, stop = entry["data_offsets"]
    for first in range(start, stop, CHUNK_BYTES):
        yield body[first : min(first + CHUNK_BYTES, stop)]


class CheckedArrays(Mapping[str, Array]):
    """The arrays of a mapped safetensors file by name: read-only views, checked when they are first taken.

    Args:
        data: the file.
        path: for the error.

    Raises:
        DamagedFile: the header is not what was written, or the file ends early; an array's own damage is met when the
            array, or the chunk of it that is asked for, is taken.
    """

    def __init__(self, data: memoryview, path: str) -> None:
        self._path = path
        self._bytes: dict[str, memoryview] = {}
        self._views: dict[str, Array] = {}
        self._sums: dict[str, Array] = {}
        self._open: dict[str, Array] = {}  # of each array, the chunks that are not checked yet
        try:
            length = int.from_bytes(data[:8], "little")
            sums = _SUMS.match(bytes(data[8 : 8 + length]))
            _, plain, body = plain_arrays(data)
            own, _, each = (b"" if sums is None else sums[2]).partition(b":")
            if sums is not None and (sums[1], own) != (NAME.encode(), checksum(plain + each).hexdigest().encode()):
                raise DamagedFile(path, "the checksum of its header is another one")
            entries = _entries(plain)
            if len(body) != (entries[-1][1]["data_offsets"][1] if entries else 0):
                raise DamagedFile(path, "it ends early, or holds more than its header says")
            self._take_in(body, entries, None if sums is None else base64.b64decode(each))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise DamagedFile(path, f"it is no whole safetensors file: {e}") from e

    def _take_in(self, body: memoryview, entries: list[tuple[str, dict[str, Any]]], sums: bytes | None) -> None:
        first = 0
        for name, entry in entries:
            start, stop = entry["data_offsets"]
            self._bytes[name] = body[start:stop]
            self._views[name] = np.frombuffer(body[start:stop], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            if sums is not None:
                num = -(-(stop - start) // CHUNK_BYTES)
                self._sums[name] = np.frombuffer(sums, np.uint8).reshape(-1, DIGEST_BYTES)[first : first + num]
                self._open[name] = np.ones(num, bool)
                first += num
        if sums is None:
            note_unchecked()

    def __getitem__(self, name: str) -> Array:
        view = self._views[name]
        if name in self._open and self._open[name].any():
            self._check(name, np.flatnonzero(self._open[name]))
        return view

    def take(self, name: str, rows: Array) -> Array:
        """`self[name][rows]`, of which only the chunks that hold these rows are read and checked.

        Args:
            name: of an array.
            rows: (R,) integers, none below zero.
        """
        view = self._views[name]
        if name in self._open and self._open[name].any() and len(rows):
            stride = len(self._bytes[name]) // max(len(view), 1)
            rows = np.asarray(rows, np.int64)
            ends = np.concatenate([rows * stride, (rows + 1) * stride - 1]) // CHUNK_BYTES
            chunks = np.unique(ends)  # a row spans two chunks at most, unless it is longer than a chunk
            if stride > CHUNK_BYTES:
                chunks = np.arange(len(self._open[name]))
            self._check(name, chunks[self._open[name][chunks]])
        return view[rows]

    def _check(self, name: str, chunks: Array) -> None:
        data, sums = self._bytes[name], self._sums[name]
        for chunk in chunks.tolist():
            part = data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
            if checksum(part).digest() != sums[chunk].tobytes():
                raise DamagedFile(self._path, f"the checksum of {name!r} is another one")
        self._open[name][chunks] = False

    def __contains__(self, name: object) -> bool:
        return name in self._views

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


# --- Parquet: in the metadata of its footer, over the file with the checksum's own digits as zeros.

PARQUET_KEY = NAME.encode()
PARQUET_BLANK = b"0" * _HEX
_MARK = PARQUET_KEY + b"\x18" + bytes([_HEX])  # in Thrift's compact form: a string's field and length


def seal_table(blank: bytes) -> bytes:
    """A Parquet file whose metadata has `PARQUET_KEY` with `PARQUET_BLANK`, with its checksum in that place."""
    place = blank.rindex(_MARK) + len(_MARK)
    digest = checksum(blank).hexdigest().encode()
    return b"".join((blank[:place], digest, blank[place + _HEX :]))


def check_table(data: memoryview, path: str) -> None:
    """Compares a Parquet file with its checksum.

    Raises:
        DamagedFile: it is not what was written.
    """
    footer = int.from_bytes(data[-8:-4], "little") + 8
    if len(data) < 12 or bytes(data[-4:]) != b"PAR1" or footer > len(data):
        raise DamagedFile(path, "it is no whole Parquet file")
    metadata = bytes(data[-footer:])
    place = metadata.rfind(_MARK)
    if place < 0 and (b"rayclean_" in metadata or b"xxh3" in metadata):
        raise DamagedFile(path, "its checksum cannot be read")
    if place < 0:
        note_unchecked()
        return
    place += len(data) - footer + len(_MARK)
    found = checksum(data[:place])
    found.update(PARQUET_BLANK)
    found.update(data[place + _HEX :])
    if found.hexdigest().encode() != bytes(data[place : place + _HEX]):
        raise DamagedFile(path, "its checksum is another one")


# --- anything else: after its bytes, where readers of these formats do not look.


def seal_bytes(data: bytes) -> bytes:
    """Any other file: its bytes, the name of the checksum, and the checksum."""
    return data + PARQUET_KEY + checksum(data).digest()


def open_bytes(data: memoryview, path: str) -> memoryview:
    """The bytes that were sealed.

    Raises:
        DamagedFile: they are not what was written.
    """
    mark = len(PARQUET_KEY) + DIGEST_BYTES
    body, end = data[:-mark], bytes(data[-mark:])
    if not end.startswith(PARQUET_KEY):
        raise DamagedFile(path, "it ends early")
    if end[len(PARQUET_KEY) :] != checksum(body).digest():
        raise DamagedFile(path, "its checksum is another one")
    return body
