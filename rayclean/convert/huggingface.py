"""A Hugging Face data set: Parquet files, a folder of `save_to_disk`, or a name on the hub.

Files are read with pyarrow alone; a name on the hub needs the library `datasets`, which fetches it. The key is the
row's number in the split. JSON: `label`, the columns of `--also`, `file` and `row`, and `path` as the set has it. A
label that is none (often -1 or null in test splits) stays what it is; a run puts such samples aside.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from rayclean.convert.arrow_tables import RowItem, Table, bytes_and_path, class_names, file_of, holds_images
from rayclean.convert.huggingface_files import fetch, find_tables, open_tables
from rayclean.convert.samples import Facts, Found, Source, Split
from rayclean.errors import ConfigError, InputError
from rayclean.storage.store import Store

TAKEN = ("label", "file", "row", "path")


def huggingface(
    source: Source,
    split: str,
    subset: str | None,
    files: str | None,
    image: str | None,
    label: str,
    also: Sequence[str],
    images: str | None,
    scratch: str | None,
) -> Found:
    """The rows of a split, and the classes.

    Args:
        source: a Parquet file, a folder of them, one of `save_to_disk`, or a name on the hub.
        split: its name.
        subset: of a data set of the hub.
        files: which Parquet files below a folder, a glob; None: those of the split.
        image: column of the images; None: the only one.
        label: column of the given labels.
        also: columns that become fields of the JSON member.
        images: folder of images that rows only name; None: the data set's.
        scratch: where Parquet is unpacked; None: beside local shards, else where temporary files go.

    Raises:
        InputError: the files are missing or broken, or have not these columns.
        ConfigError: a data set of the hub without the library that fetches it, or a field's name that is taken.
    """
    if taken := set(also) & set(TAKEN):
        raise ConfigError(f"--also {', '.join(sorted(taken))}: a field of this name is written already; leave it out")
    root = Path(source.root)
    paths = find_tables(root, split, files) if root.exists() else fetch(source.root, subset, split)
    folder = images or (source.root if root.is_dir() else "")
    unpacked = _scratch(scratch, source.out, split)
    tables = open_tables(paths, [label, *also], image, os.path.abspath(folder) if folder else "", unpacked)
    found, classes = _list_split(split, tables, label, also)
    return Found([found], classes, unpacked)


def _read_labels(tables: Sequence[Table], column: str) -> tuple[list[int | None], list[str]]:
    """The label of each row, and the classes.

    Returns:
        Labels as the set has them, of texts their position among the classes; and the classes' names.

    Raises:
        InputError: no whole numbers or texts, none that is a class, or files of different classes.
    """
    known = [class_names(table.path, column) for table in tables]
    names = known[0]
    if any(each != names for each in known):
        raise InputError(f"{column}: {tables[0].name} has other class names than a later file; convert them apart")
    values = [value for table in tables for value in table.read(column).to_pylist()]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        names = sorted({value for value in values if value is not None})
        index = {name: label for label, name in enumerate(names)}
        return [None if value is None else index[value] for value in values], names
    if kinds != {int}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        raise InputError(
            f"{tables[0].path}: found {found} in column {column}, expected whole numbers or texts; see --label"
        )
    names = names or [str(label) for label in range(max(value for value in values if value is not None) + 1)]
    if not any(value is not None and 0 <= value < len(names) for value in values):
        raise InputError(
            f"{tables[0].path}: found no label in column {column}, expected classes; choose another --split"
        )
    return values, names


def _rows_without_bytes(table: Table) -> Iterator[tuple[int, str | None]]:
    """Rows whose image is none or only named, with the name."""
    first = 0
    for part in table.suspects():
        if isinstance(part, int):
            first += part
            continue
        is_struct = holds_images(part.type)
        empty = pc.is_null(pc.struct_field(part, "bytes") if is_struct else part)
        for row in np.flatnonzero(empty.to_numpy(zero_copy_only=False)):
            yield first + int(row), bytes_and_path(part[int(row)].as_py())[1]
        first += len(part)


def _list_split(name: str, tables: Sequence[Table], label: str, also: Sequence[str]) -> tuple[Split, list[str]]:
    """The rows of a split, and the classes.

    Args:
        name: of the split.
        tables: its files.
        label: column.
        also: columns that become fields of the JSON member as they are.

    Raises:
        InputError: as of `_read_labels`, or a column of something else than numbers and texts.
    """
    labels, classes = _read_labels(tables, label)
    fields: dict[str, list[Any]] = {"label": labels}
    for column in also:
        fields[column] = [value for table in tables for value in table.read(column).to_pylist()]
        if bad := next((value for value in fields[column] if not isinstance(value, int | float | str | None)), None):
            raise InputError(f"{tables[0].path}: column {column} has {type(bad).__name__}, expected numbers or texts")
    items: list[RowItem] = []
    missing: list[str] = []
    same: dict[int | None, Facts] = {}
    number = 0
    for table in tables:
        absent = {row: path for row, path in _rows_without_bytes(table) if file_of(table, path) is None}
        missing += [f"{table.name} row {row} ({path or 'no image'})" for row, path in absent.items()]
        for row in range(len(table.read(label))):
            if row not in absent:
                facts = {field: values[number] for field, values in fields.items()}
                shared = facts if also else same.setdefault(labels[number], facts)  # of millions of rows
                items.append(RowItem(f"{number:08d}", table, row, shared))
            number += 1
    unknown = sum(value is None or not 0 <= value < len(classes) for value in labels)
    notes = [f"{unknown:,} labels are none of the classes: a run puts these samples aside"] if unknown else []
    return Split(name, items, sum(table.size for table in tables), missing, notes), classes


def _scratch(given: str | None, out: str, split: str) -> str:
    """A folder of our own: where the user says, else beside local shards, else where temporary files go."""
    store = Store(out)
    if given is None and store.is_local:
        return f"{store.path}/.scratch-{split}"
    mark = hashlib.sha256(f"{store.root} {split}".encode()).hexdigest()[:8]
    return os.path.join(os.path.abspath(given or tempfile.gettempdir()), f"rayclean-scratch-{mark}")
