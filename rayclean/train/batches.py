"""Training batches of images that are all in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from rayclean.arrays import Array
from rayclean.train.plan import batch_bounds, plan_cached, steps_of

Batch = tuple[torch.Tensor, torch.Tensor]  # (B, size, size, 3) uint8 images, (B,) int64 labels


def cached_batches(
    images: Array, labels: Array, seed: int, epoch: int, batch_size: int, rank: int = 0, ranks: int = 1
) -> Iterator[Batch]:
    """The rank's batches of an epoch; every rank gets equally many.

    Args:
        images: (N, size, size, 3) uint8, all of them on every rank.
        labels: (N,) integers.
        seed: of the permutation.
        epoch: counted from 1.
        batch_size: at most so many a batch.
        rank: this process.
        ranks: how many there are.
    """
    rows = plan_cached(seed, epoch, rank, ranks, len(images))
    for start, stop in batch_bounds(len(rows), steps_of(len(rows), batch_size)):
        mine = rows[start:stop]
        yield torch.from_numpy(images[mine]), torch.from_numpy(labels[mine].astype(np.int64))
