"""Recall of the lists on seeded samples, against a float64 search that shares nothing with FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.neighbors.index import NeighborIndex
from rayclean.neighbors.select import Neighbors
from rayclean.schema import NO_ROW, Array
from rayclean.storage.draws import uniform

BLOCK = 8192
DRAWN_ROWS = 2**20
SLACK = 1e-11  # the truth adds in another order than the lists: their distances differ in the last bits


class Recall(NamedTuple):
    """Neighbours that the lists hold of those that they should; the quotient is recall@L."""

    hits: int
    wanted: int

    @property
    def share(self) -> float:
        """In [0, 1]; 1 where nothing was wanted."""
        return self.hits / self.wanted if self.wanted else 1.0


def is_sampled(catalog: Catalog, positions: Array, seed: int, salt: str, share: float) -> Array:
    """Marks positions (M,) whose rows' seeded draw is below `share`: the same samples in any sharding."""
    sampled: Array = uniform(seed, salt, catalog.draw_id[catalog.by_label[positions]]) < share
    return sampled


def sample(catalog: Catalog, start: int, stop: int, seed: int, salt: str, share: float) -> Array:
    """Positions in [start, stop) that are sampled, ascending; drawn in blocks, as there may be 10^8."""
    found = []
    for first in range(start, stop, DRAWN_ROWS):
        positions = np.arange(first, min(first + DRAWN_ROWS, stop))
        found.append(positions[is_sampled(catalog, positions, seed, salt, share)])
    return np.concatenate([np.empty(0, np.int64), *found])


def measure(index: NeighborIndex, positions: Array, lists: Neighbors, label: int | None) -> Recall:
    """Recall of the lists of `positions` (Q,), which have `label`; None for lists of any label."""
    return count_hits(lists, true_radii(index, positions, lists.rows.shape[1], label))


def count_hits(lists: Neighbors, radii: Array) -> Recall:
    """Counts listed rows that are as near as the truth.

    Args:
        lists: of Q queries, L long; a list that is short wants as many as there are.
        radii: (Q, L) float64 squared distances of the true neighbours, inf where there are fewer.
    """
    wanted = np.isfinite(radii).sum(axis=1)
    last = np.take_along_axis(radii, np.maximum(wanted - 1, 0)[:, None], 1)
    # By distance and not by row: of rows that are equally far, any is right.
    hits = (lists.rows != NO_ROW) & (lists.distances <= last)
    return Recall(int(hits.sum()), int(wanted.sum()))


def true_radii(index: NeighborIndex, positions: Array, num: int, label: int | None) -> Array:
    """Squared distances of the `num` nearest rows, itself and exact copies of the same label left out.

    Args:
        index: whose stored features are searched.
        positions: (Q,) the queries.
        num: L.
        label: search the rows of this label alone; None for all.

    Returns:
        (Q, L) float64, ascending, inf where there are fewer; a little too large, by what sums differ in.
    """
    catalog, points = index.catalog, index.points
    begin, end = (0, catalog.num_rows) if label is None else catalog.label_range(label)
    best = np.full((len(positions), num), np.inf)
    if len(positions) == 0:
        return best
    queries = points.features(positions).astype(np.float64)
    squares = np.square(queries).sum(axis=1)[:, None]
    own = points.rows[positions][:, None]
    for start in range(begin, end, BLOCK):
        rows = points.rows[start : min(start + BLOCK, end)]
        base = points.features(np.arange(start, start + len(rows))).astype(np.float64)
        # |q|^2 + |b|^2 - 2qb is one product of matrices; between nearly equal rows it cancels to a little below 0.
        distances = np.maximum(squares + np.square(base).sum(axis=1) - 2 * queries @ base.T, 0)
        twin = points.are_twins(rows, own)
        distances[twin] = np.inf  # a row is a twin of itself
        best = np.partition(np.concatenate([best, distances], axis=1), num - 1, axis=1)[:, :num]
    best.sort(axis=1)
    radii: Array = best + SLACK * (best + squares)
    return radii


def fewest_probes(recall_at: Callable[[int], Recall], num_cells: int, target: float) -> tuple[int, Recall]:
    """The first of 1, 2, 4, ..., `num_cells` cells that reaches the target, and its recall; else all cells."""
    probes = 1
    # Doubled each time: at most twice the fewest, for a search of the sample per power of two.
    while True:
        recall = recall_at(probes)
        if recall.share >= target or probes >= num_cells:
            return probes, recall
        probes = min(2 * probes, num_cells)
