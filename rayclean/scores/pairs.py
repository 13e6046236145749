"""Undirected pairs of neighbours: each path is walked once and serves both ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rayclean.schema import Array

LEFT_LISTS_RIGHT, RIGHT_LISTS_LEFT = 1, 2


class Pairs(NamedTuple):
    """Pairs of rows, left < right, (P,) each.

    `listed` has bit 1 where `right` is in the list of `left`, bit 2 where `left` is in the list of `right`.
    """

    left: Array
    right: Array
    listed: Array


def undirected_pairs(rows: Array, neighbors: Array) -> Pairs:
    """Distinct pairs of the lists, ordered by (left, right).

    Args:
        rows: (N,) int64, the rows that have a list.
        neighbors: (N, L) int64 rows, `NO_ROW` where there is none.
    """
    source = np.repeat(rows, neighbors.shape[1])
    target = neighbors.ravel()
    there = target >= 0
    source, target = source[there], target[there]
    left, right = np.minimum(source, target), np.maximum(source, target)
    bit = np.where(source == left, LEFT_LISTS_RIGHT, RIGHT_LISTS_LEFT).astype(np.uint8)
    order = np.lexsort((right, left))
    left, right, bit = left[order], right[order], bit[order]
    if len(left) == 0:
        return Pairs(left, right, bit)
    first = np.flatnonzero(np.r_[True, (left[1:] != left[:-1]) | (right[1:] != right[:-1])])
    return Pairs(left[first], right[first], np.bitwise_or.reduceat(bit, first))


def ordered_for_locality(pairs: Pairs, label: Array, cell_left: Array, cell_right: Array) -> Pairs:
    """Sorts pairs so that a block of them needs few distinct images.

    Args:
        pairs: P pairs.
        label: (P,) label of the left end.
        cell_left: (P,) ordering cell of the left end.
        cell_right: (P,) ordering cell of the right end.
    """
    # As (lower, higher) cell, so that pairs between two cells stand together whichever end is the left one.
    low, high = np.minimum(cell_left, cell_right), np.maximum(cell_left, cell_right)
    order = np.lexsort((pairs.right, pairs.left, high, low, label))
    return Pairs(pairs.left[order], pairs.right[order], pairs.listed[order])
