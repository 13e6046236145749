"""Where the files of a Hugging Face data set lie: named, in a folder, or on the hub, from which they are fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rayclean.convert.arrow_tables import ParquetTable, Table, holds_images, is_parquet, open_stream, schema_of
from rayclean.errors import ConfigError, InputError

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # of `save_to_disk`
_SPLIT_NAME = re.compile(r"[\w.-]+")


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
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"{name}: found no such file or folder; for a data set of the hub install the library that fetches it: "
            "pip install 'rayclean[huggingface]'"
        ) from error
    if not _SPLIT_NAME.fullmatch(split):
        raise ConfigError(f"--split {split}: expected the name of a whole split, as train")
    try:
        data = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # it raises its own and those of half a dozen libraries
        raise InputError(f"{name}, split {split}: datasets cannot load it: {error}; check name and network") from error
    files = [Path(file["filename"]) for file in data.cache_files]
    rows = sum(open_stream(str(file)).num_rows for file in files)
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
        schema = schema_of(str(path))
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
        make = ParquetTable if is_parquet(path) else Table
        tables.append(make(str(path.absolute()), name, path.stat().st_size, image, folder, scratch))
    return tables
