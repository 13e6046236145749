"""Features in files of their own beside the samples of the shards: one for each sample, and which belong to none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayclean.errors import InputError
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays, read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name


def count_unused(store: Store, folder: str, files: Sequence[str], names: Sequence[str]) -> int | None:
    """Features that belong to no row of a catalog.

    Holds 8 bytes per row.

    Args:
        store: the run's files.
        folder: of the catalog, whose shards are read.
        files: of each shard's features.
        names: of the shards.

    Returns:
        How many; None where the features are no files of their own.

    Raises:
        InputError: samples of one key, in several shards, have the same features.
    """
    used: list[Array] = []
    total = 0
    for shard, file in enumerate(files):
        arrays = map_arrays(store, file)
        if "given" not in arrays:
            return None
        rows = read_table(store, _rows_file(folder, shard))
        places = rows["feature"].to_numpy() if "feature" in rows.column_names else np.zeros(0, np.int64)
        used.append(np.asarray(arrays["given"])[places])
        total = int(arrays["given_total"][0])
    found, counts = np.unique(np.concatenate(used), return_counts=True)
    if (counts > 1).any():
        raise _repeated(store, folder, used, int(found[counts > 1][0]), names)
    return total - len(found)


def _rows_file(folder: str, shard: int) -> str:
    return f"{folder}/rows/{block_name(shard)}.parquet"


def _repeated(store: Store, folder: str, used: Sequence[Array], given: int, names: Sequence[str]) -> InputError:
    """What is said of features that several samples have."""
    shards = [shard for shard, rows in enumerate(used) if (rows == given).any()]
    place = int(np.flatnonzero(used[shards[0]] == given)[0])
    key = read_table(store, _rows_file(folder, shards[0]), ["key"])["key"][place].as_py()
    return InputError(
        f"data.features: key {key!r} is in {len(shards)} shards ({names[shards[0]]}, {names[shards[1]]}) and there is "
        "one row of features for it; add a column shard to the features, as the final table has it"
    )
