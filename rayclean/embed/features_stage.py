"""Features that another tool computed, brought into the order of the catalog's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.given import FileFeatures, GivenFeatures, open_given
from rayclean.embed.table import Embedding, Space
from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.given_tables import KEY
from rayclean.storage.units import UnitResult, block_names, block_range

VERSION = 1
FIELD = "inn.features"


@dataclass(frozen=True)
class FeaturesJob(Space):
    """Reads the features of all rows from files.

    Attributes:
        source: Parquet files with `key` (string) and `features` or `embedding` (lists of numbers, all of one length),
            and `shard` (as the final table has it) where keys repeat across shards.
    """

    stage: ClassVar[str] = "embed"
    catalog: Catalog
    source: str
    block_rows: int

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        """Reads which samples the files have, and where."""
        given = _opened(self.source, InputError)
        shard_names = self.catalog.shards["name"].to_pylist()

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            blocks = []
            for shard, first, last in self.catalog.shards_of(start, stop):
                keys = self.catalog.rows_of_shard(shard)[KEY].slice(first, last - first).to_pylist()
                blocks.append(strict_features(given, shard_names[shard], keys))
            return UnitResult({"features": np.concatenate(blocks)}, rows=stop - start)

        return compute

    @property
    def embedding(self) -> Embedding:
        """What the finished job gives: features alone."""
        return Embedding(self.store, self.folder, self.block_rows, self.catalog.num_classes)


def check_features(source: str) -> None:
    """Looks at the files' columns and names.

    Raises:
        ConfigError: one cannot be read, a column is missing, is there twice or holds something else, or keys repeat.
    """
    _opened(source, ConfigError)


def strict_features(given: GivenFeatures, shard: str, keys: Sequence[str]) -> Array:
    """(n, d) float16 features of samples of a shard.

    Raises:
        InputError: a key has none, or they are not of one length or no numbers of 16 bits.
    """
    values, there = given.of_shard(shard, keys)
    if not there.all():
        raise InputError(f"{given.source}: no features for key {keys[int(np.argmin(there))]!r} of {shard}")
    fits = (np.abs(values) <= np.finfo(np.float16).max).all(axis=1)
    if not fits.all():
        raise InputError(
            f"{given.source}: features of key {keys[int(np.argmin(fits))]!r} of {shard} are missing, not of one length "
            f"({given.dim} numbers), not finite, or too large for float16 (65,504)"
        )
    return values.astype(np.float16)


def _opened(source: str, kind: type[ConfigError] | type[InputError]) -> GivenFeatures:
    """The files, whose errors are all of one kind: before the run has begun, or within it."""
    try:
        return open_given(FileFeatures(source), FIELD)
    except (ConfigError, InputError) as e:
        raise kind(str(e)) from e


def features_job(catalog: Catalog, source: str, mark: str, block_rows: int) -> FeaturesJob:
    """The features of a file; `mark` is the digest of its content."""
    folder = f"embed-{fingerprint('features', VERSION, {'block_rows': block_rows}, [catalog.fingerprint, mark])}"
    return FeaturesJob(catalog.store, folder, catalog, source, block_rows)
