"""The space of features that are there: their statistics over all rows, and what is near by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.features import STATISTICS, Moments, RowFeatures, StandardFeatures, standardized
from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding, Space
from rayclean.errors import InputError
from rayclean.late import torch
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.draws import smallest_draws
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import UnitResult, block_range, num_blocks
from rayclean.train.heads import RATE_ROWS, stable_rate
from rayclean.train.old_heads import OldHeads

VERSION = 1


@dataclass(frozen=True)
class FeatureSpaceJob(Space):
    """Means and deviations of all rows' features, and the rate that heads can learn from them by. One unit."""

    stage: ClassVar[str] = "embed"
    catalog: Catalog
    seed: int
    block_rows: int
    old: OldHeads | None = None

    def units(self) -> Sequence[str]:
        """The statistics."""
        return [STATISTICS]

    def open(self) -> Callable[[str], UnitResult]:
        """Loads nothing: the one unit goes over all features, or takes what old heads have learned with."""
        return lambda _: self._compute() if self.old is None else self._of_old(self.old)

    def _of_old(self, old: OldHeads) -> UnitResult:
        """Those that old heads have learned with."""
        mark, classes = RowFeatures(self.catalog).mark, self.catalog.num_classes
        if (old.mark, old.facts["classes"]) != (mark, classes):
            raise InputError(
                f"train.from {old.store.root}: its heads are of {old.mark} and {old.facts['classes']} classes, found "
                f"{mark} and {classes}; give the same network, weights and preprocessing, and the same classes"
            )
        statistics = map_arrays(old.store, f"{old.facts['statistics']}/{STATISTICS}.safetensors")
        return UnitResult(dict(statistics), rows=self.catalog.num_rows)

    def _compute(self) -> UnitResult:
        rows, total = RowFeatures(self.catalog), self.catalog.num_rows
        blocks = (np.arange(*block_range(i, self.block_rows, total)) for i in range(num_blocks(total, self.block_rows)))
        moments = moments_of(map(rows.read, blocks))
        scale = moments.scale()
        some = np.flatnonzero(smallest_draws(self.seed, "heads.rate", self.catalog.draw_id, RATE_ROWS))
        values = standardized(rows.read(some), moments.mean, scale)
        rate = stable_rate(torch.from_numpy(values), self.seed)
        return UnitResult({"mean": moments.mean, "scale": scale, "rate": np.array([rate])}, rows=total)

    @property
    def features(self) -> StandardFeatures:
        """As heads take them, once the job is done."""
        return StandardFeatures(RowFeatures(self.catalog), self.folder)

    @property
    def embedding(self) -> Embedding:
        """What is near: by the angle between features."""
        return Directions(self.store, self.folder, self.block_rows, self.catalog.num_classes, self.features)


def moments_of(blocks: Iterable[Array]) -> Moments:
    """Means and deviations of features that come in blocks (n, d), in float64, block by block in order."""
    total, first, count = np.zeros(0), np.zeros(0), 0
    squares = np.zeros(0)
    for block in blocks:
        values = block.astype(np.float64)
        if not count:
            first = values.mean(axis=0)  # sums of what is near 0 lose nothing
            total, squares = np.zeros_like(first), np.zeros_like(first)
        values -= first
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
        count += len(values)
    mean = total / count
    return Moments(first + mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


@dataclass(frozen=True)
class Directions(Embedding):
    """Standardized features as unit vectors, whose distances are those of their angles; no beliefs.

    Attributes:
        source: the features.
    """

    source: StandardFeatures

    def features(self, rows: Array) -> Array:
        """(R, d) float16 unit vectors of one or more `rows` (R,)."""
        values = self.source.read(rows)
        lengths = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        result: Array = (values / lengths).astype(np.float16)
        return result


def feature_space_job(catalog: Catalog, seed: int, block_rows: int, old: OldHeads | None) -> FeatureSpaceJob:
    """The space of a catalog's features, with the statistics of old heads where there are any."""
    fields = {"seed": seed, "block_rows": block_rows} | ({} if old is None else {"old": old.digest})
    mark = fingerprint("features", VERSION, fields, [catalog.fingerprint])
    return FeatureSpaceJob(catalog.store, f"embed-{mark}", catalog, seed, block_rows, old)
