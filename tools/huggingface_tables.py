"""The files of a Hugging Face data set, Parquet or Arrow, read by row with pyarrow; a name on the hub is fetched."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.shards.write import Sample
from tools.convert import IMAGE_EXTENSIONS, Facts
from tools.convert_imagefolder import extension_of

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # of `save_to_disk`
UNPACK_ROWS = 256
_SPLIT_NAME = re.compile(r"[\w.-]+")
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
        return _open_stream(self.path)[column]

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
        return _open_stream(stream)[self.image]

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
def _open_stream(path: str) -> pa.Table:
    return _reading(path, lambda: pa.ipc.open_stream(pa.memory_map(path)).read_all())


def _reading(path: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read: {error}; expected Parquet or Arrow, fetch the file again") from error


def find_tables(root: Path, split: str, files: str | None) -> list[tuple[Path, str]]:
    """The files of a split with their names, in the order of the rows.

    Args:
        root: a Parquet file, a folder of them, or one of `save_to_disk`.
        split: its name.
        files: which Parquet files below the folder, a glob; None: those whose path has the split as a part.

    Raises:
        InputError: there are none.
    """
    if root.is_file():
        return [(root, root.name)]
    if (root / SAVED_SPLITS).exists():
        splits = json.loads((root / SAVED_SPLITS).read_text())["splits"]
        if split not in splits:
            raise InputError(f"{root}: found no split {split}, but {', '.join(splits)}; name one of these with --split")
        root /= split
    if (root / SAVED).exists():
        state = json.loads((root / SAVED).read_text())
        if state.get("_indices_data_files"):
            raise InputError(f"{root}: found rows in another order (indices); save it again after flatten_indices()")
        return [(root / each["filename"], each["filename"]) for each in state["_data_files"]]
    found = sorted(path.relative_to(root).as_posix() for path in root.glob(files or "**/*.parquet"))
    part = re.compile(rf"(^|[-_./]){re.escape(split)}([-_./]|$)")
    taken = found if files else [name for name in found if part.search(name)]
    if not taken:
        raise InputError(
            f"{root}: found no file of {files or f'split {split}'} among {len(found)} Parquet files "
            f"({', '.join(found[:3])}, ...); name the split with --split, or the files with --files"
        )
    return [(root / name, name) for name in taken]


def fetch(name: str, subset: str | None, split: str) -> list[tuple[Path, str]]:
    """The files of a data set of the hub, which `datasets` fetches to its cache.

    Raises:
        ConfigError: the library is not installed, or the split is not a name alone.
        InputError: it does not get the data set.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            f"{name}: found no such file or folder; for a data set of the hub install the library that fetches it: "
            "pip install datasets"
        ) from error
    if not _SPLIT_NAME.fullmatch(split):
        raise ConfigError(f"--split {split}: expected the name of a whole split, as train")
    try:
        data = library.load_dataset(name, subset, split=split)
    except Exception as error:  # it raises its own and those of half a dozen libraries
        raise InputError(f"{name}, split {split}: datasets cannot load it: {error}; check name and network") from error
    files = [Path(file["filename"]) for file in data.cache_files]
    rows = sum(_open_stream(str(file)).num_rows for file in files)
    if rows != len(data):
        raise InputError(
            f"{name}: found {rows} rows in files of its cache, expected {len(data)}; save it to disk first"
        )
    return [(file, file.name) for file in files]


def open_tables(
    files: Sequence[tuple[Path, str]], columns: Sequence[str], image: str | None, folder: str, scratch: str
) -> list[Table]:
    """The files as tables with a column of images.

    Args:
        files: as `find_tables` gives them.
        columns: others that they must have.
        image: the column of the images; None: the only one that the first file has.
        folder: see `Table`.
        scratch: see `Table`.

    Raises:
        InputError: a file cannot be read, or has not these columns.
    """
    tables = []
    for path, name in files:
        schema = _schema(str(path))
        if image is None:
            found = [field.name for field in schema if holds_images(field.type)]
            if len(found) != 1:
                raise InputError(
                    f"{path}: found {len(found)} columns of images in {schema.names}; name it: --image NAME"
                )
            image = found[0]
        if absent := {image, *columns} - set(schema.names):
            raise InputError(
                f"{path}: found columns {', '.join(schema.names)}, not {', '.join(sorted(absent))}; name the right "
                "ones with --image, --label and --also"
            )
        kind = schema.field(image).type
        if not (holds_images(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(f"{path}: found {kind} in column {image}, expected images; name another with --image")
        make = ParquetTable if _is_parquet(path) else Table
        tables.append(make(str(path.absolute()), name, path.stat().st_size, image, folder, scratch))
    return tables


def holds_images(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def _is_parquet(path: str | Path) -> bool:
    return str(path).endswith(".parquet")


def _schema(path: str) -> pa.Schema:
    return _reading(path, lambda: pq.read_schema(path)) if _is_parquet(path) else _open_stream(path).schema


def class_names(path: str, column: str) -> list[str] | None:
    """Of a column of ClassLabel."""
    metadata = json.loads((_schema(path).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    return [str(name) for name in names] if names else None
