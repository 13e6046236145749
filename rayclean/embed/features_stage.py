"""Features that another tool computed, brought into the order of the catalog's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding
from rayclean.errors import InputError
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range

VERSION = 1
KEY, SHARD, FEATURES = "key", "shard", "features"


@dataclass(frozen=True)
class FeaturesJob(Job):
    """Reads the features of all rows from a file.

    Attributes:
        source: a Parquet file with `key` (string) and `features` (lists of numbers, all of one length), and `shard`
            (as the final table has it) where keys repeat across shards.
    """

    stage: ClassVar[str] = "embed"
    catalog: Catalog
    source: str
    block_rows: int

    def units(self) -> Sequence[str]:
        """A unit a block of rows."""
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        """Reads the file, and where each sample lies in it."""
        table = read_features(self.source)
        values = np.stack(table[FEATURES].to_numpy()).astype(np.float16)
        has_shards = SHARD in table.column_names
        where = {name: place for place, name in enumerate(_names(table, has_shards))}
        shard_names = self.catalog.shards["name"].to_pylist()

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            places = []
            for shard, first, last in self.catalog.shards_of(start, stop):
                keys = self.catalog.rows_of_shard(shard)[KEY].slice(first, last - first).to_pylist()
                for key in keys:
                    name = (shard_names[shard], key) if has_shards else key
                    if name not in where:
                        raise InputError(f"{self.source}: no features for key {key!r} of {shard_names[shard]}")
                    places.append(where[name])
            return UnitResult({"features": values[places]}, rows=stop - start)

        return compute

    @property
    def embedding(self) -> Embedding:
        """What the finished job gives: features alone."""
        return Embedding(self.store, self.folder, self.block_rows, self.catalog.num_classes)


def read_features(source: str) -> pa.Table:
    """The file's columns.

    Raises:
        InputError: it cannot be read, a column is missing, keys repeat, or the features are not of one length.
    """
    try:
        table = pq.read_table(source)
    except (OSError, pa.ArrowInvalid) as e:
        raise InputError(f"{source}: cannot be read as Parquet: {e}") from e
    missing = {KEY, FEATURES} - set(table.column_names)
    if missing:
        raise InputError(f"{source}: expected columns {KEY} and {FEATURES}, found {', '.join(table.column_names)}")
    lengths = set(table[FEATURES].combine_chunks().value_lengths().to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise InputError(f"{source}: expected features of one length, found lengths {sorted(map(str, lengths))[:5]}")
    names = _names(table, SHARD in table.column_names)
    if len(set(names)) < len(names):
        raise InputError(f"{source}: some keys are there twice; add a column {SHARD} where keys repeat across shards")
    return table


def _names(table: pa.Table, has_shards: bool) -> list[str] | list[tuple[str, str]]:
    """What identifies each sample of the file."""
    keys = table[KEY].to_pylist()
    return list(zip(table[SHARD].to_pylist(), keys, strict=True)) if has_shards else keys


def features_job(catalog: Catalog, source: str, mark: str, block_rows: int) -> FeaturesJob:
    """The features of a file; `mark` is the digest of its content."""
    folder = f"embed-{fingerprint('features', VERSION, {'block_rows': block_rows}, [catalog.fingerprint, mark])}"
    return FeaturesJob(catalog.store, folder, catalog, source, block_rows)
