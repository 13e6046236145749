"""IOFM and INN where a path is a straight line between two features, and the network is a head.

On such a line what a head makes of features before anything is rectified is linear too: a path needs that of its two
ends and nothing else. No image is read. The papers' paths run between images; these are their counterpart for features
[our choice].

Letters: N rows, K classes, L neighbours, H steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from rayclean.schema import Array
from rayclean.scores.interpolation import TRAPEZOID, PathMeans, path_means

ROWS_AT_ONCE = 4096


def feature_paths(
    own: Array,
    others: Array,
    at_neighbors: Array,
    steps: int,
    labels: Array,
    end_weight: float = TRAPEZOID,
    logits_at: Callable[[Array], Array] = np.asarray,
) -> PathMeans:
    """The trapezoid mean of the beliefs on the paths of each row [IOFM, definition of s_i; on features].

    Args:
        own: (N, m) what is linear in the features of the rows: logits, or what goes into hidden units.
        others: (M, m) the same of the rows that are neighbours.
        at_neighbors: (N, L) which of these, `NO_ROW` where a row has fewer.
        steps: H.
        labels: (N,) given labels.
        end_weight: of a path's ends.
        logits_at: (R, m) points between ends to (R, K) logits.
    """
    at_rows = scipy.special.softmax(logits_at(own).astype(np.float64), axis=1)
    sums = np.zeros_like(at_rows)
    for start in range(0, len(own), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        first = own[block].astype(np.float64)
        # One neighbour of each row at a time: all L at once would take L times the memory.
        for column in at_neighbors[block].T:
            there = column >= 0
            end = others[column[there]].astype(np.float64)
            begin, path = first[there], np.zeros((int(there.sum()), sums.shape[1]))
            for step in range(1, steps):
                path += scipy.special.softmax(
                    logits_at(begin + (end - begin) * (step / steps)).astype(np.float64), axis=1
                )
            at_end = scipy.special.softmax(logits_at(end).astype(np.float64), axis=1)
            sums[np.flatnonzero(there) + start] += path + end_weight * at_end
    num_paths = (at_neighbors >= 0).sum(axis=1)
    return path_means(at_rows, sums, num_paths, steps, labels, end_weight)
