"""The exact choice among proposed candidates, the same for every backend that proposes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rayclean.schema import NO_ROW, Array

EXTRA_CANDIDATES = 8
CHUNK = 512

# (queries (Q, d) float32, k) -> candidate positions (Q, k), nearest first; NO_ROW only where there are no more at all.
Propose = Callable[[Array, int], Array]


class Neighbors(NamedTuple):
    """Nearest first: rows (Q, L) int64, `NO_ROW` where fewer, and squared distances (Q, L) float64, inf there."""

    rows: Array
    distances: Array


class Points(NamedTuple):
    """What is searched and asked for, by position. The columns are the catalog's, mapped: only what is used is read."""

    rows: Array  # (P,) int64, the row at each position
    labels: Array  # by row, int32
    twins: Array  # by row, (N, 1 or 2): equal where two rows are no evidence for each other
    draws: Array  # by row, uint64: the sample's identity in any sharding
    features: Callable[[Array], Array]  # positions (M,) -> (M, d) float16, or float32 of arrays in memory
    of_any_label: bool = False  # whether twins are none whatever their labels, else only those of one label

    def are_twins(self, rows: Array, others: Array) -> Array:
        """Whether rows are no evidence for others, elementwise; the arrays may be broadcast against each other."""
        same: Array = (self.twins[rows] == self.twins[others]).all(axis=-1)
        return same if self.of_any_label else same & (self.labels[rows] == self.labels[others])


def nearest(points: Points, positions: Array, propose: Propose, num: int) -> Neighbors:
    """The `num` nearest points of each query, itself and its twins left out.

    Candidates come in float32 from `propose`; the choice is by float64 distance of the features as they are stored,
    ties by draw id, then by row, so that every exact backend and any sharding gives the same list. Where leaving
    out makes a list short, or its last entry is no nearer than the last candidate, so that others as near may
    follow, twice as many are proposed, until that is settled or the points end.

    Args:
        points: all points.
        positions: (Q,) which of them to answer.
        propose: the search.
        num: L.
    """
    result = Neighbors(np.full((len(positions), num), NO_ROW, np.int64), np.full((len(positions), num), np.inf))
    first = k = num + EXTRA_CANDIDATES
    open_ = np.arange(len(positions))
    while len(open_):
        size = max(1, CHUNK * first // k)  # a label of mere copies asks for all of them: memory stays the same
        settled = np.zeros(len(open_), bool)
        for start in range(0, len(open_), size):
            here = open_[start : start + size]
            features = points.features(positions[here])
            found = propose(features.astype(np.float32), k)
            rows, distances, reach = _choose(points, positions[here], features, found, num)
            result.rows[here], result.distances[here] = rows, distances
            settled[start : start + size] = (distances[:, -1] < reach) | (found < 0).any(axis=1)
        open_, k = open_[~settled], 2 * k
    return result


def _choose(points: Points, positions: Array, features: Array, found: Array, num: int) -> tuple[Array, Array, Array]:
    """The best `num` of the candidates `found` (Q, k), k >= num, and how far the farthest candidate is, (Q,)."""
    safe = np.maximum(found, 0)
    candidates = points.features(safe.ravel()).astype(np.float64).reshape(*safe.shape, -1)
    # In place: (Q, k, d) in float64 is the largest array of a search.
    candidates -= features.astype(np.float64)[:, None]
    distances = np.square(candidates, out=candidates).sum(axis=-1)
    reach = distances.max(axis=1)
    rows, own = points.rows[safe], points.rows[positions][:, None]
    left_out = (found < 0) | (rows == own) | points.are_twins(rows, own)
    distances[left_out] = np.inf
    order = np.lexsort((rows, points.draws[rows], distances), axis=-1)[:, :num]
    rows, distances = np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)
    return np.where(np.isinf(distances), NO_ROW, rows), distances, reach
