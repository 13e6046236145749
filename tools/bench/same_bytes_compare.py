"""What two published tables differ in: file by file, column by column, value by value.

Compared is all that a reader of `labels/` and `tables/` meets: which files there are, the columns, their order, types,
nulls, metadata and values bit by bit, so that -0.0 and 0.0, NaN and null, and two NaNs are told apart; of JSON every
fact. Left out is what names a start and not its result:

- the merge's fingerprint in the files' names, and in the manifest `merge`, `files` (whose names and checksums follow
  from it) and `lease`, the number of the start;
- in the metadata of Parquet the environment stamp (device, threads, versions of libraries) and the file's checksum;
- of JSON documents the checksum, and facts whose name ends in `_s`, which are seconds.

Where whole files are the same all the same, that is counted, since it is the stronger statement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDERS = ("labels", "tables")
MANIFEST = "_manifest.json"  # in `tables/`; in `labels/` in revisions of before
MARK = re.compile(r"-[0-9a-f]{8}(?=[-.])")
STAMPS = (b"rayclean.environment", b"rayclean_xxh3")
OF_A_START = ("merge", "files", "lease", "rayclean_xxh3")
KEYS = ("key", "clip", "name")  # what a row is called, in the tables of rows, of clips and of classes
_SAME_WIDTH = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        files: in both tables.
        same_files: of these, the ones whose bytes are all the same.
        differences: one line each; none where the tables are equal.
    """

    files: int
    same_files: int
    differences: tuple[str, ...]


def compare(a: Path, b: Path) -> Comparison:
    """Compares two folders that hold a run's `labels/` and `tables/`.

    Raises:
        FileNotFoundError: one of them holds no table.
    """
    there = [_files(a), _files(b)]
    common = sorted(there[0].keys() & there[1].keys())
    lines = [f"{name}: only in the {side} table" for side, name in _only_in(*there)]
    same_files = 0
    for name in common:
        same_files += there[0][name].read_bytes() == there[1][name].read_bytes()
        lines += _differences(name, there[0][name], there[1][name])
    return Comparison(len(common), same_files, tuple(lines))


def _files(folder: Path) -> dict[str, Path]:
    """The files of a table by folder and name, without the merge's fingerprint."""
    paths = [path for name in FOLDERS for path in (folder / name).glob("*") if path.is_file()]
    found = {f"{path.parent.name}/{MARK.sub('', path.name, count=1)}": path for path in paths if path.name != MANIFEST}
    manifest = next((path for path in paths if path.name == MANIFEST), None)
    if manifest is None:
        raise FileNotFoundError(f"{folder} holds no table: {FOLDERS[1]}/{MANIFEST} is missing")
    return {MANIFEST: manifest, **found}


def _only_in(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("first", name) for name in a if name not in b] + [("second", name) for name in b if name not in a]


def _differences(name: str, a: Path, b: Path) -> Iterator[str]:
    if name.endswith(".parquet"):
        # Not read_table, which would take a folder called x=y above the file for a column.
        yield from _of_tables(name, pq.ParquetFile(a).read(), pq.ParquetFile(b).read())
    elif name.endswith(".json"):
        yield from _of_facts(name, _facts(a), _facts(b))
    elif a.read_bytes() != b.read_bytes():
        yield f"{name}: other bytes"


def _of_tables(name: str, a: pa.Table, b: pa.Table) -> Iterator[str]:
    missing = _only_in(dict.fromkeys(a.column_names), dict.fromkeys(b.column_names))
    yield from (f"{name}: column {column} only in the {side} table" for side, column in missing)
    if not missing and a.column_names != b.column_names:
        yield f"{name}: the columns have another order"
    metadata = [_without_stamps(table.schema.metadata) for table in (a, b)]
    if metadata[0] != metadata[1]:
        yield f"{name}: metadata {metadata[0]} and {metadata[1]}"
    if a.num_rows != b.num_rows:
        yield f"{name}: {a.num_rows} and {b.num_rows} rows"
        return
    for column in a.column_names:
        if column not in b.column_names:
            continue
        fields = a.schema.field(column), b.schema.field(column)
        if not fields[0].equals(fields[1], check_metadata=True):
            yield f"{name}: {column} is {_described(fields[0])} and {_described(fields[1])}"
        elif rows := _differing_rows(a[column], b[column]):
            first, key = rows[0], next((a[each] for each in KEYS if each in a.column_names), None)
            where = f"row {first}" if key is None else f"{key[first].as_py()!r}"
            values = " and ".join(_shown(table[column], first) for table in (a, b))
            yield f"{name}: {column} differs in {len(rows)} of {a.num_rows} rows, first at {where}: {values}"


def _without_stamps(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
    return {key: value for key, value in (metadata or {}).items() if key not in STAMPS}


def _described(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'} {_without_stamps(field.metadata)}"


def _differing_rows(a: pa.ChunkedArray, b: pa.ChunkedArray) -> list[int]:
    pairs = zip(_bits(a), _bits(b), strict=True)
    return [row for row, (first, second) in enumerate(pairs) if first != second]


def _bits(column: pa.ChunkedArray) -> list[Any]:
    """Its values, nulls as None, numbers with a point as the integers of the same bits."""
    array, kind = column.combine_chunks(), _as_integers(column.type)
    return list((array if kind == column.type else array.view(kind)).to_pylist())


def _as_integers(kind: pa.DataType) -> pa.DataType:
    return pa.list_(_as_integers(kind.value_type)) if pa.types.is_list(kind) else _SAME_WIDTH.get(kind, kind)


def _shown(column: pa.ChunkedArray, row: int) -> str:
    """A value, and its bits where the value would not tell."""
    value = column[row].as_py()
    hidden = isinstance(value, float) and (value != value or value == 0)
    return f"{value!r} (bits {_bits(column.slice(row, 1))[0]:#x})" if hidden else repr(value)


def _facts(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())
    return {key: value for key, value in found.items() if key not in OF_A_START and not key.endswith("_s")}


def _of_facts(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*a, *b]):
        # As text, in which NaN equals itself and 1 is not 1.0; a fact that is missing is not one that is null.
        shown = [json.dumps(facts[key]) if key in facts else "nothing" for facts in (a, b)]
        if shown[0] != shown[1]:
            yield f"{name}: {key} is {shown[0]} and {shown[1]}"
