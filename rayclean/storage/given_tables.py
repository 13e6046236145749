"""Tables that people and other tools give and take: CSV in which no cell is a formula, and whatever they may hold.

A spreadsheet takes a cell that begins with one of `FORMULAS` for a formula, and keys are strangers' data. Such a cell
gets one leading quote, as does one that begins with a quote, so that each is read back as it was.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from rayclean.errors import ConfigError

ESCAPED = "rayclean_escaped"  # a file with this column has quotes to be taken off
FORMULAS = "=+@\t\r-"  # in this order also a set in a regular expression
_QUOTE = "'"
PARQUET = (".parquet", ".pq")
KEY, SHARD = "key", "shard"


def encode_csv(table: pa.Table) -> bytes:
    """A table as CSV, with `ESCAPED` as its last column: all text is quoted, and none of it begins a formula.

    Args:
        table: columns of text (also dictionaries of it), numbers and truth values.
    """
    columns = [_guarded(column) for column in table.columns]
    marks = pa.array([True] * table.num_rows, pa.bool_())
    sink = io.BytesIO()
    pa.csv.write_csv(pa.table([*columns, marks], names=[*table.column_names, ESCAPED]), sink)
    return sink.getvalue()


def _guarded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if not _is_text(column.type):
        return column
    return pc.replace_substring_regex(column, pattern=rf"\A(['{FORMULAS}])", replacement=rf"{_QUOTE}\1")


def read_given(path: str, field: str, other: str, with_rows: bool = True) -> pa.Table:
    """A CSV or Parquet file of samples that a config names.

    Args:
        path: Parquet, or CSV, whose cells are all text.
        field: of the config, for errors.
        other: the column that it has beside `key`, as it lies in the file.
        with_rows: whether more is wanted than a check of the columns.

    Returns:
        Its columns; `key`, and `shard` where it has one, as text, no key null.

    Raises:
        ConfigError: it cannot be read, is cut, lacks a column or has it twice, or keys are no text.
    """
    try:
        table = _read_parquet(path, with_rows) if _is_parquet(path) else _read_csv(path)
        table.validate(full=True)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as e:
        raise unreadable_table(f"{field} {path}", e) from e
    return checked_given(table, f"{field} {path}", other)


def unreadable_table(where: str, error: Exception) -> ConfigError:
    """The error for a file of samples that cannot be read; `where` is the config's field and the file."""
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ConfigError(f"{where}: cannot be read, is it whole? {cause}")


def checked_given(table: pa.Table, where: str, other: str) -> pa.Table:
    """The columns of a file of samples, as `read_given` gives them.

    Args:
        table: as it lies in the file.
        where: the config's field and the file, for errors.
        other: the column that it has beside `key`.

    Raises:
        ConfigError: it lacks a column or has it twice, or keys are no text.
    """
    names = table.column_names
    missing = [name for name in (KEY, other) if name not in names]
    if missing:
        raise ConfigError(
            f"{where}: no column {missing[0]}; expected columns {' and '.join(dict.fromkeys((KEY, other)))}, found "
            f"{', '.join(names) or 'none'}; where keys repeat from shard to shard, add {SHARD}"
        )
    for name in (KEY, other, SHARD, ESCAPED):
        if names.count(name) > 1:
            raise ConfigError(f"{where}: column {name} is there {names.count(name)} times; leave one of them")
    for name in (name for name in (KEY, SHARD) if name in names):
        column = _text(table[name], f"{where}: column {name}")
        table = table.set_column(names.index(name), name, column)
    if table[KEY].null_count:
        row = pc.index(table[KEY].is_null(), pa.scalar(True)).as_py()
        raise ConfigError(f"{where}: row {row + 1} has no key")
    return _without_guards(table) if ESCAPED in names else table


def _is_parquet(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1" or Path(path).suffix.lower() in PARQUET


def _read_parquet(path: str, with_rows: bool) -> pa.Table:
    with pa.parquet.ParquetFile(path) as file:  # one file: folders called `key=1` around it are no columns
        return file.read() if with_rows else file.schema_arrow.empty_table()


def _read_csv(path: str) -> pa.Table:
    """All cells as text. By Python's reader: pyarrow's takes a column that is there twice for one, a cut for an end.

    Raises:
        ValueError: it is no text, a line is short or long, or a quote is not closed.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        names = next(lines, [])
        if not names:
            raise ValueError("it is empty")
        rows = []
        for row in lines:
            if len(row) == len(names):
                rows.append(row)
            elif row:  # an empty line is none
                raise ValueError(f"line {lines.line_num} has {len(row)} cells, expected {len(names)}")
    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [[]] * len(names), names)


def _text(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ConfigError(f"{what} is of type {column.type}, expected text")
    return column.cast(pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _without_guards(table: pa.Table) -> pa.Table:
    for index, name in enumerate(table.column_names):
        if _is_text(table[name].type):
            plain = pc.replace_substring_regex(table[name], pattern=rf"\A{_QUOTE}", replacement="")
            table = table.set_column(index, name, plain)
    return table
