"""Training batches of images that are all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array
from rayclean.train.plan import batch_bounds, plan_cached, steps_of


class Batch(NamedTuple):
    """What one step trains on.

    Attributes:
        images: (B, size, size, 3) uint8; (B, 1, 1, d) float32 where features stand for them.
        labels: (B,) int64, or (B, K) float32 with what each class has of a sample.
        weights: (B,) float32 of each sample's loss; None where all count alike.
    """

    images: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None = None


class Lesson(NamedTuple):
    """What is to be learned, by row.

    Attributes:
        labels: (N,) integers; `LEFT_OUT` for rows that are not trained on.
        weights: (N,) float32; None where all count alike.
        targets: rows (R,) to (R, K) float32 with what each class has of them, in place of labels; None without.
    """

    labels: Array
    weights: Array | None = None
    targets: Callable[[Array], Array] | None = None

    @property
    def rows(self) -> Array:
        """Rows that are trained on, ascending."""
        return np.flatnonzero(self.labels >= 0)

    def batch(self, rows: Array, images: Array) -> Batch:
        """A batch of some rows, of which none is left out."""
        weights = None if self.weights is None else torch.from_numpy(self.weights[rows].astype(np.float32))
        labels = self.labels[rows].astype(np.int64) if self.targets is None else self.targets(rows)
        return Batch(torch.from_numpy(images), torch.from_numpy(labels), weights)


def cached_rows(rows: Array, seed: int, epoch: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[Array]:
    """A rank's batches of an epoch as rows; every rank gets equally many.

    Args:
        rows: (R,) those that are trained on.
        seed: of the permutation.
        epoch: counted from 1.
        batch_size: at most so many per batch.
        rank: this process.
        ranks: how many there are.
    """
    mine = rows[plan_cached(seed, epoch, rank, ranks, len(rows))]
    for start, stop in batch_bounds(len(mine), steps_of(len(mine), batch_size)):
        yield mine[start:stop]
