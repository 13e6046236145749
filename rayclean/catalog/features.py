"""Features of rows, read from the files of their shards, and as linear layers take them.

Letters: R rows, d features.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.errors import InputError
from rayclean.schema import Array
from rayclean.storage.checksums import CheckedArrays
from rayclean.storage.contents import KeptArrays, map_arrays

STATISTICS = "statistics"
STRENGTH = 1280.0  # squared length of an average row of features, to which the recipe of heads belongs
MAX_OPEN_FILES = 256


class Moments(NamedTuple):
    """Means (d,) and deviations (d,) of features, float64."""

    mean: Array
    deviation: Array

    def scale(self) -> Array:
        """(d,) float32 that centred features are multiplied by: equal deviations, an average row of `STRENGTH`.

        The recipe of a head then holds for any number of features. Constant columns become 0.
        """
        varies = self.deviation > 1e-6 * np.maximum(np.abs(self.mean), 1e-30)
        each = np.sqrt(STRENGTH / max(int(varies.sum()), 1))
        found: Array = np.where(varies, each / np.where(varies, self.deviation, 1), 0).astype(np.float32)
        return found


@dataclass(frozen=True)
class RowFeatures:
    """Features as a network gave them. Picklable and cheap: files are mapped where they are used."""

    catalog: Catalog

    def __getstate__(self) -> dict[str, object]:
        return {"catalog": self.catalog}

    @cached_property
    def _open(self) -> OrderedDict[int, CheckedArrays | KeptArrays]:
        return OrderedDict()

    @cached_property
    def _files(self) -> list[str]:
        found: list[str] = self.catalog.shards["features"].to_pylist()
        return found

    @property
    def mark(self) -> str:
        """Of what gives the features: the name of their folder."""
        return self._files[0].partition("/")[0] if self._files else ""

    def _shard(self, shard: int) -> CheckedArrays | KeptArrays:
        if shard not in self._open:
            while len(self._open) >= MAX_OPEN_FILES:
                self._open.popitem(last=False)
            self._open[shard] = map_arrays(self.catalog.store, self._files[shard])
        self._open.move_to_end(shard)
        return self._open[shard]

    def read(self, rows: Array) -> Array:
        """(R, d) float32 of one or more `rows` (R,).

        Raises:
            InputError: shards have features of different widths.
        """
        shards, places = self.catalog.places(rows)
        result: Array | None = None
        for shard in np.unique(shards):
            here, file = np.flatnonzero(shards == shard), self._shard(int(shard))
            values = file.take("features", places[here])
            if result is None:
                result = np.empty((len(rows), values.shape[1]), np.float32)
            if values.shape[1] != result.shape[1]:
                raise self._other_width(int(shard), values.shape[1], int(shards[0]), result.shape[1])
            result[here] = values.astype(np.float32) * file["scale"]
        if result is None:
            raise ValueError("at least one row expected")
        return result

    def _other_width(self, shard: int, found: int, other: int, expected: int) -> InputError:
        names = self.catalog.shards["name"].to_pylist()
        return InputError(
            f"{names[shard]}: its samples have {found} features, those of {names[other]} have {expected}; "
            "give features of one network for all shards"
        )


@dataclass(frozen=True)
class StandardFeatures:
    """The same with mean 0 and equal deviations, as linear layers take them.

    Attributes:
        rows: of any catalog.
        folder: of the statistics, which may be another catalog's.
    """

    rows: RowFeatures
    folder: str

    def __getstate__(self) -> dict[str, object]:
        return {"rows": self.rows, "folder": self.folder}

    @property
    def catalog(self) -> Catalog:
        """The catalog whose rows have these features."""
        return self.rows.catalog

    @cached_property
    def _statistics(self) -> CheckedArrays | KeptArrays:
        return map_arrays(self.catalog.store, f"{self.folder}/{STATISTICS}.safetensors")

    @property
    def rate(self) -> float:
        """Learning rate of heads that learn from them."""
        return float(self._statistics["rate"][0])

    def read(self, rows: Array) -> Array:
        """(R, d) float32 of one or more `rows` (R,)."""
        statistics = self._statistics
        return standardized(self.rows.read(rows), statistics["mean"], statistics["scale"])


def standardized(features: Array, mean: Array, scale: Array) -> Array:
    """(R, d) float32 features less their means (d,), times (d,)."""
    result: Array = (features - mean.astype(np.float32)) * scale
    return result
