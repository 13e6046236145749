"""Features that another tool computed, brought into the order of the catalog's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding, Space
from rayclean.errors import ConfigError, InputError
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.given_tables import KEY, SHARD, read_given
from rayclean.storage.units import UnitResult, block_names, block_range

VERSION = 1
FIELD, FEATURES = "inn.features", "features"


@dataclass(frozen=True)
class FeaturesJob(Space):
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


def check_features(source: str, with_rows: bool = False) -> pa.Table:
    """Looks at the file's columns, and not at its rows, which the driver could not hold.

    Raises:
        ConfigError: it cannot be read, or a column is missing, is there twice or holds something else.
    """
    table = read_given(source, FIELD, FEATURES, with_rows)
    if not _is_list_of_numbers(table[FEATURES].type):
        raise ConfigError(f"{FIELD} {source}: expected features as lists of numbers, found {table[FEATURES].type}")
    return table


def read_features(source: str) -> pa.Table:
    """The file's columns.

    Raises:
        InputError: as `check_features`; keys repeat, or the features are not of one length or no numbers of 16 bits.
    """
    try:
        table = check_features(source, with_rows=True)
    except ConfigError as e:
        raise InputError(str(e)) from e
    features = table[FEATURES].combine_chunks()
    lengths = set(pc.list_value_length(features).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise InputError(f"{source}: expected features of one length, found lengths {sorted(map(str, lengths))[:5]}")
    values = features.flatten()
    largest = np.abs(values.to_numpy(zero_copy_only=False)).max(initial=0)
    if values.null_count or not largest <= np.finfo(np.float16).max:
        raise InputError(f"{source}: some features are missing, not finite, or too large for float16 (65,504)")
    names = _names(table, SHARD in table.column_names)
    if len(set(names)) < len(names):
        raise InputError(f"{source}: some keys are there twice; add a column {SHARD} where keys repeat across shards")
    return table


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _names(table: pa.Table, has_shards: bool) -> list[str] | list[tuple[str, str]]:
    """What identifies each sample of the file."""
    keys = table[KEY].to_pylist()
    return list(zip(table[SHARD].to_pylist(), keys, strict=True)) if has_shards else keys


def features_job(catalog: Catalog, source: str, mark: str, block_rows: int) -> FeaturesJob:
    """The features of a file; `mark` is the digest of its content."""
    folder = f"embed-{fingerprint('features', VERSION, {'block_rows': block_rows}, [catalog.fingerprint, mark])}"
    return FeaturesJob(catalog.store, folder, catalog, source, block_rows)
