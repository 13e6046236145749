"""Neighbour vote: how many of the nearest rows of any label have the given label, or each of the classes.

Letters: N rows, L neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARE_FLOOR = 0.02


def neighbor_vote(
    neighbor_labels: NDArray[np.integer], valid: NDArray[np.bool_], labels: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return the share of valid neighbours with the row's given label (ours, after SimiFeat, ICML 2022).

    Args:
        neighbor_labels: (N, L) given labels of the nearest rows of any label.
        valid: (N, L) which entries are neighbours; the rest pads lists that are too short.
        labels: (N,) given labels.

    Returns:
        (N,) float32 in [0, 1], higher = cleaner; NaN for a row without neighbours.

    Raises:
        ValueError: the shapes do not fit.
    """
    if not (neighbor_labels.ndim == 2 and neighbor_labels.shape == valid.shape == (len(labels), valid.shape[-1])):
        found = f"{neighbor_labels.shape}, {valid.shape}, {labels.shape}"
        raise ValueError(f"neighbor_labels (N, L), valid (N, L), labels (N,) expected, found {found}")
    num_valid = valid.sum(axis=1)
    num_equal = (valid & (neighbor_labels == labels[:, None])).sum(axis=1)
    votes = np.full(len(labels), np.nan, dtype=np.float32)
    np.divide(num_equal, num_valid, out=votes, where=num_valid > 0, casting="same_kind")
    return votes


def neighbor_shares(
    neighbor_labels: NDArray[np.integer], num_classes: int, floor: float = SHARE_FLOOR
) -> NDArray[np.float64]:
    """Return the shares of the classes among the labels of neighbours: a belief that has not seen the row's label.

    Args:
        neighbor_labels: (N, L) given labels of the nearest rows of any label, `NO_LABEL` for those that are not there.
        num_classes: K.
        floor: added to each share before they are normalised; a row without neighbours is equally sure of all.

    Returns:
        (N, K) float64, positive, rows sum to 1.
    """
    shares = np.zeros((len(neighbor_labels), num_classes))
    # Column by column: one indexed addition would count a label once that several neighbours of a row have.
    for labels in neighbor_labels.T:
        there = np.flatnonzero(labels >= 0)
        shares[there, labels[there]] += 1
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    shares += floor
    result: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return result
