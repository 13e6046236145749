"""Training batches of features: what `feed` does with images, without shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.schema import Array
from rayclean.train.batches import Lesson
from rayclean.train.feed import Feed, FeedSettings
from rayclean.train.inputs import FeatureInputs, Reader
from rayclean.train.plan import Part

ROWS_AT_ONCE = 1024  # rows that are read together


@dataclass(frozen=True)
class FeatureFeedSettings(FeedSettings):
    """How features are read in place of images.

    Attributes:
        inputs: how they are standardized.
    """

    inputs: FeatureInputs = field(kw_only=True)

    def open(self, catalog: Catalog, rank: int, ranks: int, lesson: Lesson | None = None) -> Feed:
        """Batches of one rank."""
        return FeatureFeed(catalog, self, rank, ranks, lesson)


class FeatureFeed(Feed):
    """The same of features, (B, 1, 1, d) float32: kept where they fit into `data.cache_bytes`, else read in runs.

    Args:
        catalog: the rows.
        settings: how they are read.
        rank: this process.
        ranks: how many there are.
        lesson: as of `Feed`.
    """

    def __init__(
        self, catalog: Catalog, settings: FeatureFeedSettings, rank: int, ranks: int, lesson: Lesson | None = None
    ) -> None:
        self.inputs = settings.inputs
        super().__init__(catalog, settings, rank, ranks, lesson)

    def _reader(self) -> Reader:
        return self.inputs.of(self.catalog)

    def _cached(self) -> Array | None:
        total = self.catalog.num_rows
        first = self.pixels.read(np.zeros(1, np.int64))
        if total * first.nbytes > self.settings.cache_bytes:
            return None
        found = np.empty((total, *first.shape[1:]), first.dtype)
        for start in range(0, total, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, total))
            found[rows] = self.pixels.read(rows)
        return found

    def _read(self, parts: tuple[Part, ...], rows: Array, edges: Array) -> Iterator[tuple[int, Array]]:
        for part in parts:
            mine = rows[edges[part.shard] + part.start : edges[part.shard] + part.stop]
            for start in range(0, len(mine), ROWS_AT_ONCE):
                some = mine[start : start + ROWS_AT_ONCE]
                yield from zip(some.tolist(), self.pixels.read(some), strict=True)
