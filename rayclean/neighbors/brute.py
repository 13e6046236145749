"""Neighbour lists by brute force, without an index: exact, for features that are in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from rayclean.late import torch
from rayclean.neighbors.select import Neighbors, Points, Propose, nearest
from rayclean.schema import NO_ROW, Array

BASE_ROWS = 2**16  # rows whose distances to a few hundred queries are held together


def list_neighbors(points: Points, queries: Array, num: int, any_label: bool, device: torch.device) -> Neighbors:
    """Lists of the nearest points of some of them, exact, by brute force.

    Args:
        points: all points.
        queries: (Q,) positions to answer.
        num: L.
        any_label: whether neighbours of any label count, else those of the same.
        device: where distances are computed.
    """
    positions = np.arange(len(points.rows))
    if any_label:
        return nearest(points, queries, propose_among(points.features, positions, device), num)
    labels = points.labels[points.rows]
    result = Neighbors(np.full((len(queries), num), NO_ROW, np.int64), np.full((len(queries), num), np.inf))
    for label in np.unique(labels[queries]):
        here = np.flatnonzero(labels[queries] == label)
        propose = propose_among(points.features, np.flatnonzero(labels == label), device)
        result.rows[here], result.distances[here] = nearest(points, queries[here], propose, num)
    return result


def knn(queries: Array, base: Array, k: int, device: torch.device) -> tuple[Array, Array]:
    """The k nearest of `base` (B, d) float32, k <= B, for queries (Q, d): distances and indexes, (Q, k)."""
    asked, among = (torch.from_numpy(each).to(device) for each in (queries, base))
    distances, found = torch.cdist(asked, among).topk(k, largest=False)
    return distances.cpu().numpy(), found.cpu().numpy()


def propose_among(features: Callable[[Array], Array], among: Array, device: torch.device) -> Propose:
    """Proposes the k nearest of some positions, `NO_ROW` where there are fewer; distances to `BASE_ROWS` at a time.

    Args:
        features: positions (M,) to (M, d) float16 or float32.
        among: (M,) positions that are searched.
        device: where distances are computed.
    """

    @lru_cache(maxsize=1)  # one block of points is read once, many are read again for each chunk of queries
    def base_from(start: int) -> torch.Tensor:
        block = features(among[start : start + BASE_ROWS]).astype(np.float32)
        return torch.from_numpy(block).to(device)

    def propose(queries: Array, k: int) -> Array:
        asked = torch.from_numpy(queries).to(device)
        best = torch.empty((len(queries), 0), device=device)
        found = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
        for start in range(0, len(among), BASE_ROWS):
            base = base_from(start)
            numbers = torch.arange(start, start + len(base), device=device).expand(len(queries), -1)
            # Only the best k so far go on to the next block, so memory does not grow with the points.
            distances = torch.cat([best, torch.cdist(asked, base)], dim=1)
            best, chosen = distances.topk(min(k, distances.shape[1]), largest=False)
            found = torch.cat([found, numbers], dim=1).gather(1, chosen)
        positions = among[found.cpu().numpy()]
        short = k - positions.shape[1]
        return np.pad(positions, ((0, 0), (0, short)), constant_values=NO_ROW) if short else positions

    return propose
