"""What near rows tell of a network that has seen the labels it is asked about [our choice].

The label of a row beside was drawn apart from the row's own, so the network cannot have learned the one from the other.

Letters: M rows, J of their nearest, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclean.merge.transition import adjusted, find_anchors, surest

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]

LEAN_FACTOR = 2.0
# Of `noise_ratio`: 1 to 4 where nothing is memorised, the more the fewer labels are wrong; 30 to 700 where they are.
MEMORISED_RATIO = 10.0


class Near(NamedTuple):
    """Some rows and their nearest of any label: what the network has not learned of a row's label, these can tell.

    Attributes:
        beliefs: (M, K).
        neighbors: (M, J, K) beliefs of the nearest rows, NaN where there are fewer.
        given: (M,) labels of the rows.
        labels: (M, J) those of the nearest rows, `NO_LABEL` where there are fewer.
        first_labels: (M, J) those of the rows that were the nearest by the first snapshot's features, likewise.
    """

    beliefs: Float64
    neighbors: Float64
    given: Ints
    labels: Ints
    first_labels: Ints


def own_lean(near: Near, log_mean: Float64) -> float:
    """How much larger U_i is at the row's own label than its neighbours' U there, less the same at the other labels.

    Twice that, 0 or more: the neighbours' beliefs lean to their own labels, which are often the same.
    """
    own = adjusted(near.beliefs, log_mean)
    known = ~np.isnan(near.neighbors).any(axis=(1, 2))
    if not known.any() or own.shape[1] < 2:
        return 0.0
    excess = own[known] - adjusted(near.neighbors[known], log_mean).mean(axis=1)
    at_label = excess[np.arange(len(excess)), near.given[known]]
    beside = (excess.sum(axis=1) - at_label) / (own.shape[1] - 1)
    return max(0.0, LEAN_FACTOR * float((at_label - beside).mean()))


def noise_ratio(near: Near, log_mean: Float64) -> float:
    """How much more often the nearest rows of anchors have another label than the anchors themselves, 1 or more.

    Of two rows of a class the surer is the one whose label the network has learned, so anchors have too few wrong
    labels. The labels of rows beside them were not chosen so.
    """
    top, gap = surest(adjusted(near.beliefs, log_mean))
    rows, classes = find_anchors(top, gap, least=1)
    labels = near.labels[rows]
    there = labels >= 0
    num = int(there.sum())
    if not num:
        return 1.0
    beside = (labels != classes[:, None])[there].mean()
    own = (near.given[rows] != classes).mean()
    # One more of each, so that no wrong label at all among the anchors has a ratio too.
    return max(1.0, float(beside * num + 1) / float(own * num + 1))


def learned_share(ratio: float) -> float:
    """How far the labels of anchors are not to be counted, 0 to 1, by their `noise_ratio`."""
    return max(0.0, 1.0 - MEMORISED_RATIO / ratio)


def near_counts(near: Near, log_mean: Float64) -> Float64:
    """(K, K) labels of the rows that were first near anchors of each class, a row's together counting one.

    Where the anchors' labels are memorised, all seem right; these were near before anything could be.
    """
    top, gap = surest(adjusted(near.beliefs, log_mean))
    rows, classes = find_anchors(top, gap)
    counts = np.zeros((len(log_mean), len(log_mean)))
    for labels in near.first_labels[rows].T:
        there = labels >= 0
        np.add.at(counts, (classes[there], labels[there]), 1 / near.first_labels.shape[1])
    return counts
