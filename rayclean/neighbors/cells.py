"""Ordering cells: clusters of 500 to 1,000 near rows, so that pairs of near images lie near each other."""

from __future__ import annotations

import numpy as np

from rayclean.schema import Array

ROWS_PER_CELL = 750  # measured: fewer, larger cells order better than those of a search index
TRAINING_ROWS_PER_CELL = 64


def ordering_cells(features: Array, seed: int = 1) -> Array:
    """Assigns rows to cells by k-means.

    Args:
        features: (N, d) float; not changed.
        seed: of k-means.

    Returns:
        (N,) int32 cell of each row; all 0 for fewer than two cells' worth of rows.
    """
    num_cells = round(len(features) / ROWS_PER_CELL)
    if num_cells < 2:
        return np.zeros(len(features), np.int32)
    import faiss  # not needed to score arrays in memory

    base = np.ascontiguousarray(features, np.float32)
    kmeans = faiss.Kmeans(base.shape[1], num_cells, niter=6, seed=seed, max_points_per_centroid=TRAINING_ROWS_PER_CELL)
    kmeans.train(base)
    _, cells = kmeans.index.search(base, 1)
    result: Array = cells[:, 0].astype(np.int32)
    return result
