"""Files of features: Parquet with names beside features, or a matrix beside Parquet with names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayclean.config.features_text import ClipRetrieval, FileFeatures
from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array
from rayclean.shards.opening import open_shard
from rayclean.shards.urls import expand_shards, identify_shard, local_path
from rayclean.storage.fingerprint import file_digest
from rayclean.storage.given_tables import KEY, SHARD, checked_given, unreadable_table

COLUMNS = ("features", "embedding")
LOOKED_AT = 1000  # rows whose commonest length is the length
NAMES, MATRIX = "metadata", "img_emb"  # of clip-retrieval: folders, and what their files begin with


class Part(Protocol):
    """One file of features.

    Attributes:
        num_rows: rows in it.
        names: `key`, and `shard` where it has one; one row each.
    """

    num_rows: int
    names: pa.Table

    def width(self) -> int:
        """Numbers per row, 0 where no row has any."""

    def read(self, rows: Array, dim: int) -> Array:
        """(n, dim) float32 of rows in any order, NaN where one has no `dim` numbers."""


def open_parts(source: FileFeatures | ClipRetrieval, field: str) -> Sequence[Part]:
    """The files of a source; raises as `rayclean.embed.given.open_given`."""
    files = files_of(source, field)
    if isinstance(source, FileFeatures):
        return [ParquetPart(file, field) for file in files]
    half = len(files) // 2
    return [MatrixPart(matrix, names, field) for matrix, names in zip(files[:half], files[half:], strict=True)]


def files_of(source: FileFeatures | ClipRetrieval, field: str) -> list[str]:
    """Paths and URLs of all files; of clip-retrieval first the matrices, then what names their rows.

    Raises:
        ConfigError: there are none, or a matrix has no names or the other way round.
    """
    if isinstance(source, FileFeatures):
        try:
            return expand_shards(source.pattern, field)
        except InputError as e:
            raise ConfigError(str(e)) from e
    where = f"{field} {source.folder}"
    folder = local_path(source.folder)
    if folder is None:
        raise ConfigError(f"{where}: a folder on a disk of all nodes expected, whose matrices can be mapped; copy it")
    matrices = _numbered(Path(folder).expanduser() / MATRIX, MATRIX, ".npy")
    names = _numbered(Path(folder).expanduser() / NAMES, NAMES, ".parquet")
    if not matrices or matrices.keys() != names.keys():
        odd = sorted(set(matrices) ^ set(names))
        found = f"number {odd[0]} is in one folder alone" if odd else "found neither"
        raise ConfigError(f"{where}: expected {MATRIX}/{MATRIX}_0.npy beside {NAMES}/{NAMES}_0.parquet, ...; {found}")
    order = sorted(matrices)
    return [*(matrices[number] for number in order), *(names[number] for number in order)]


def _numbered(folder: Path, prefix: str, suffix: str) -> dict[int, str]:
    found = ((re.fullmatch(rf"{prefix}_(\d+){re.escape(suffix)}", path.name), path) for path in folder.glob("*"))
    return {int(match[1]): str(path) for match, path in found if match}


def mark_of(file: str, field: str) -> str:
    """What a file is at this moment: its content's digest, or size and time of what is large or elsewhere.

    Raises:
        ConfigError: it cannot be read.
    """
    if (path := local_path(file)) is not None and not path.endswith(".npy"):
        return file_digest(path, field)
    try:
        identity = identify_shard(file)
    except InputError as e:
        raise ConfigError(f"{field} {e}") from e
    return f"{identity.size} {identity.tag}"


class ParquetPart:
    """A Parquet file with columns `key`, `features` (or `embedding`), and `shard` where it has one.

    Raises:
        ConfigError: it cannot be read, or a column is missing, is there twice or holds something else.
    """

    def __init__(self, url: str, field: str) -> None:
        self.where = f"{field} {url}"
        self._file = _open(url, self.where)
        schema = self._file.schema_arrow
        given = [name for name in COLUMNS if name in schema.names]
        if len(given) > 1:
            raise ConfigError(f"{self.where}: has columns {' and '.join(given)}; leave one of them")
        self._column = (given or COLUMNS)[0]
        checked_given(schema.empty_table(), self.where, self._column)
        kind = schema.field(self._column).type
        if not _is_list_of_numbers(kind):
            raise ConfigError(f"{self.where}: expected {self._column} as lists of numbers, found {kind}")
        self.names = _read_names(self._file, self.where, self._column)
        self.num_rows = self.names.num_rows
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._held: tuple[int, pa.Array] = (-1, pa.array([]))

    def width(self) -> int:
        """The commonest length of the first rows that have features."""
        try:
            for batch in self._file.iter_batches(LOOKED_AT, columns=[self._column]):
                lengths = [length for length in pc.list_value_length(batch.column(0)).to_pylist() if length]
                if lengths:
                    return int(Counter(lengths).most_common(1)[0][0])
        except (OSError, ValueError, pa.ArrowException) as e:
            raise unreadable_table(self.where, e) from e
        return 0

    def read(self, rows: Array, dim: int) -> Array:
        """See `Part`. A row group is held, the last one: it should have few rows, 10,000 say."""
        values = np.empty((len(rows), dim), np.float32)
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            wanted = groups == group
            values[wanted] = _matrix(self._group(group).take(pa.array(rows[wanted] - self._starts[group])), dim)
        return values

    def _group(self, group: int) -> pa.Array:
        if self._held[0] != group:
            try:
                column = self._file.read_row_group(group, columns=[self._column])[self._column]
            except (OSError, ValueError, pa.ArrowException) as e:
                raise InputError(str(unreadable_table(self.where, e))) from e
            self._held = (group, pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type))
        return self._held[1]


class MatrixPart:
    """A `.npy` matrix, mapped, and a Parquet file that names its rows.

    Raises:
        ConfigError: one cannot be read, or is something else.
        InputError: they have not equally many rows.
    """

    def __init__(self, matrix: str, names: str, field: str) -> None:
        where = f"{field} {names}"
        self.names = _read_names(_open(names, where), where, KEY)
        self.num_rows = self.names.num_rows
        try:
            self._values: Array = np.load(matrix, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise unreadable_table(f"{field} {matrix}", e) from e
        if self._values.ndim != 2 or self._values.dtype.kind not in "fiu":
            found = f"shape {self._values.shape} of {self._values.dtype}"
            raise ConfigError(f"{field} {matrix}: found {found}, expected numbers, (rows, d)")
        if len(self._values) != self.num_rows:
            raise InputError(
                f"{field} {matrix}: has {len(self._values)} rows, but {names} has {self.num_rows}; write both anew"
            )

    def width(self) -> int:
        """The matrix's."""
        return int(self._values.shape[1])

    def read(self, rows: Array, dim: int) -> Array:
        """See `Part`."""
        if self.width() != dim:
            return np.full((len(rows), dim), np.nan, np.float32)
        with np.errstate(over="ignore"):
            return self._values[rows].astype(np.float32)


def _open(url: str, where: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(open_shard(url))
    except InputError as e:
        raise ConfigError(f"{where}: cannot be read: {e}") from e
    except (OSError, ValueError, pa.ArrowException) as e:
        raise unreadable_table(where, e) from e


def _read_names(file: pq.ParquetFile, where: str, other: str) -> pa.Table:
    """`key`, and `shard` where there is one, as text."""
    checked_given(file.schema_arrow.empty_table(), where, other)
    columns = [name for name in (KEY, SHARD) if name in file.schema_arrow.names]
    try:
        table = file.read(columns=columns)
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as e:
        raise unreadable_table(where, e) from e
    return checked_given(table, where, KEY)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _matrix(lists: Any, dim: int) -> Array:
    """(n, dim) float32 of lists; NaN where one is missing, has a hole, or has another length."""
    fits = pc.equal(pc.list_value_length(lists), dim).fill_null(False)
    values = np.full((len(lists), dim), np.nan, np.float32)
    numbers = lists.filter(fits).flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        values[fits.to_numpy(zero_copy_only=False)] = numbers.astype(np.float32).reshape(-1, dim)
    return values
