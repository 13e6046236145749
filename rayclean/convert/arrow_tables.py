"""The files of a Hugging Face data set, Parquet or Arrow, whose images are read by row with pyarrow."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.convert.files import extension_of
from rayclean.convert.samples import IMAGE_EXTENSIONS, Facts
from rayclean.errors import InputError, RaycleanError
from rayclean.shards.write import Sample

UNPACK_ROWS = 256
_UNKNOWN = "img"

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A stream of Arrow, as `datasets` saves and caches its rows: it is mapped, and any row is at hand.

    Attributes:
        path: of the file.
        name: below the data set's folder.
        size: bytes.
        image: column of the images.
        folder: that images without bytes must be in; empty for none.
        scratch: folder for what must be unpacked.
    """

    path: str
    name: str
    size: int
    image: str
    folder: str
    scratch: str

    def read(self, column: str) -> pa.ChunkedArray:
        """A column. Raises InputError."""
        return open_stream(self.path)[column]

    def images(self) -> pa.ChunkedArray:
        """The images, mapped. Raises InputError."""
        return self.read(self.image)

    def suspects(self) -> Iterator[pa.Array | int]:
        """The images in parts; for parts in which all have bytes, it may be the number of rows alone."""
        yield from self.images().chunks


@dataclass(frozen=True)
class ParquetTable(Table):
    """A Parquet file; its rows can be had in large groups alone."""

    def read(self, column: str) -> pa.ChunkedArray:
        """As of `Table`."""
        return _reading(self.path, lambda: pq.ParquetFile(self.path).read([column])[column])

    def images(self) -> pa.ChunkedArray:
        """As of `Table`; the process that comes first unpacks them.

        Raises:
            InputError: the file cannot be read.
            RaycleanError: the scratch folder cannot be written.
        """
        mark = hashlib.sha256(f"{self.path} {self.size} {self.image}".encode()).hexdigest()[:16]
        stream = f"{self.scratch}/{mark}.arrow"
        if not os.path.exists(stream):
            try:
                self._unpack(stream)
            except OSError as error:
                raise RaycleanError(
                    f"{stream}: cannot be written: {error}; it needs as much disk as the images of {self.name}: make "
                    "room, or name another folder with --scratch"
                ) from error
        return open_stream(stream)[self.image]

    def _unpack(self, stream: str) -> None:
        os.makedirs(self.scratch, exist_ok=True)
        with open(f"{stream}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(stream):
                return
            file = _reading(self.path, lambda: pq.ParquetFile(self.path))
            batches = file.iter_batches(UNPACK_ROWS, columns=[self.image])
            schema = pa.schema([file.schema_arrow.field(self.image)])
            with pa.OSFile(f"{stream}.part", "wb") as out, pa.ipc.new_stream(out, schema) as writer:
                while (batch := _reading(self.path, lambda: next(batches, None))) is not None:
                    writer.write_batch(batch)
            os.rename(f"{stream}.part", stream)

    def suspects(self) -> Iterator[pa.Array | int]:
        """As of `Table`: the file's statistics know most groups that have all bytes."""
        file = pq.ParquetFile(self.path)
        leaves = [file.schema.column(index).path for index in range(len(file.schema))]
        leaf = leaves.index(f"{self.image}.bytes" if f"{self.image}.bytes" in leaves else self.image)
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            statistics = group.column(leaf).statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                yield group.num_rows
            else:
                yield from file.read_row_group(index, [self.image])[self.image].chunks


@dataclass(frozen=True, slots=True)
class RowItem:
    """A row.

    Attributes:
        key: its number in the split.
        table: the file it is in.
        row: its number there.
        facts: of the JSON member.
    """

    key: str
    table: Table
    row: int
    facts: Facts

    def identity(self) -> str:
        """File, row and facts."""
        return json.dumps([self.table.name, self.table.size, self.row, self.facts])

    def sample(self) -> Sample:
        """The bytes in the row, or those of the file that it names.

        Raises:
            InputError: the file has neither any more.
        """
        content, path = bytes_and_path(self.table.images()[self.row].as_py())
        if content is None:
            file = file_of(self.table, path) or ""
            try:
                content, path = Path(file).read_bytes(), os.path.relpath(file, self.table.folder)
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {error.strerror}; the same command goes on") from error
        named = {} if path is None else {"path": path}
        facts = {**self.facts, "file": self.table.name, "row": self.row, **named}
        return self.key, {_kind(content, path): content, "json": json.dumps(facts).encode()}


def bytes_and_path(value: Any) -> tuple[bytes | None, str | None]:
    """Of a value in a column of images: its bytes and the name of its file; None for what it has not."""
    return (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)


def file_of(table: Table, path: str | None) -> str | None:
    """The file that a row names, where it is in the folder that files may be read from."""
    if not path or not table.folder:
        return None
    full = os.path.normpath(os.path.join(table.folder, path))
    return full if full.startswith(os.path.join(table.folder, "")) and os.path.isfile(full) else None


def _kind(content: bytes, path: str | None) -> str:
    """The extension of an image, by its first bytes: many rows have no name."""
    if content.startswith(b"\x89PNG\r\n"):
        return "png"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    named = extension_of(path or "")
    if content.startswith(b"\xff\xd8\xff"):
        return named if named in ("jpg", "jpeg") else "jpg"
    return named if named.isalnum() and named not in IMAGE_EXTENSIONS else _UNKNOWN


@functools.lru_cache(maxsize=4096)
def open_stream(path: str) -> pa.Table:
    """A stream of Arrow, mapped. Raises InputError."""
    return _reading(path, lambda: pa.ipc.open_stream(pa.memory_map(path)).read_all())


def _reading(path: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read: {error}; expected Parquet or Arrow, fetch the file again") from error


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column is of images as `datasets` has them."""
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def is_parquet(path: str | Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return str(path).endswith(".parquet")


def schema_of(path: str) -> pa.Schema:
    """The columns of a file. Raises InputError."""
    return _reading(path, lambda: pq.read_schema(path)) if is_parquet(path) else open_stream(path).schema


def class_names(path: str, column: str) -> list[str] | None:
    """The classes of a column of ClassLabel; None of others. Raises InputError."""
    metadata = json.loads((schema_of(path).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    return [str(name) for name in names] if names else None
