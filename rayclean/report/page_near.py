"""Samples that are nearly the same and carry different labels, from the evidence of the last snapshot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.units import block_name, block_range, num_blocks

NEAR = 0.5  # of the usual distance to the nearest sample: what is closer is a near pair [our choice]
PAIRS = 60
SAMPLED = 100_000  # distances that the usual one is the median of


@dataclass(frozen=True)
class NearPairs:
    """Pairs, the closest first.

    Attributes:
        rows: (P, 2) int64, the smaller row first.
        closeness: (P,) distance as a share of the usual one, 0 to NEAR.
        num_rows: rows that have such a sample among their three nearest.
    """

    rows: Array
    closeness: Array
    num_rows: int


def near_pairs(catalog: Catalog, folder: str, block_rows: int) -> NearPairs:
    """The closest pairs of rows with different given labels and different pixels.

    Only the three nearest samples of each row are looked at, by the network's features. Copies of a picture are no
    near pair: they have a list of their own.

    Args:
        catalog: of the rows.
        folder: of the vote at the last snapshot.
        block_rows: of its files.
    """
    num_rows, label = catalog.num_rows, catalog.label
    blocks = range(num_blocks(num_rows, block_rows))
    usual = _usual(catalog, folder, blocks)
    found = np.empty((0, 2), np.int64), np.empty(0)
    num_near = 0
    for block in blocks:
        start, stop = block_range(block, block_rows, num_rows)
        lists = map_arrays(catalog.store, f"{folder}/{block_name(block)}.safetensors")
        others, distances = lists["neighbors"], np.sqrt(lists["neighbor_distances"].astype(np.float64))
        row = np.repeat(np.arange(start, stop)[:, None], others.shape[1], axis=1)
        close = (others >= 0) & (distances <= NEAR * usual)
        first, second, distance = row[close], others[close], distances[close]
        differ = (label[first] != label[second]) & (catalog.digest[first] != catalog.digest[second]).any(axis=1)
        num_near += len(np.unique(first[differ]))
        pairs = np.sort(np.stack([first, second], axis=1)[differ], axis=1)
        found = _closest(np.concatenate([found[0], pairs]), np.concatenate([found[1], distance[differ]]))
    return NearPairs(found[0], found[1] / usual if usual else found[1], num_near)


def _usual(catalog: Catalog, folder: str, blocks: range) -> float:
    """The median distance of a row to its nearest neighbour, 0 where there is none."""
    nearest = []
    for block in blocks:
        lists = map_arrays(catalog.store, f"{folder}/{block_name(block)}.safetensors")
        there = lists["neighbors"][:, :1] >= 0
        step = max(catalog.num_rows // SAMPLED, 1)
        nearest.append(lists["neighbor_distances"][:, :1][there][::step])
    distances = np.concatenate([np.empty(0), *nearest])
    return float(np.sqrt(np.median(distances))) if len(distances) else 0.0


def _closest(pairs: Array, distances: Array) -> tuple[Array, Array]:
    """The first PAIRS of distinct pairs by distance; a pair is found from both of its ends."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distances))
    pairs, distances = pairs[order], distances[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    kept = np.sort(first)[:PAIRS]
    return pairs[kept], distances[kept]
