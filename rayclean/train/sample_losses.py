"""The loss, the margin and the prediction of each row, from a network's logits."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating]


def check_logits(logits: Floats, labels: NDArray[np.integer]) -> None:
    """Refuses logits (N, K) and labels (N,) that cannot be a network's and its rows'.

    Raises:
        ValueError: a logit is not finite, a label is out of range, or the shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits (N, K) and labels (N,) expected, found {logits.shape} and {labels.shape}")
    num_rows, num_classes = logits.shape
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise ValueError(f"{(~finite).sum()} of {num_rows} rows have logits that are not finite")
    if num_rows and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels {labels.min()}..{labels.max()} found, 0..{num_classes - 1} expected")


def sample_losses(logits: Floats, labels: NDArray[np.integer]) -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """Return the loss, margin and wrong prediction of each row at one snapshot.

    The loss is log(1 + sum_{k != y} exp(z_k - z_y)), so that a loss near 0 keeps its digits, which
    -log(softmax) loses.

    Args:
        logits: (N, K) z, finite.
        labels: (N,) given labels y, in 0..K-1.

    Returns:
        loss: (N,) float64, -log f_y >= 0.
        margin: (N,) float64, z_y - max_{k != y} z_k; with one class (K = 1) z_y itself.
        wrong: (N,) bool, argmax z != y; equal logits count as the first class of them.

    Raises:
        ValueError: a logit is not finite, a label is out of range, or the shapes do not fit.
    """
    check_logits(logits, labels)
    num_rows, num_classes = logits.shape
    rows = np.arange(num_rows)
    others = logits.astype(np.float64)
    given = others[rows, labels]
    wrong = others.argmax(axis=1) != labels if num_rows else np.zeros(0, dtype=np.bool_)
    if num_classes == 1:
        return np.zeros(num_rows), given, wrong
    others[rows, labels] = -np.inf
    loss = np.logaddexp(0.0, scipy.special.logsumexp(others, axis=1) - given)
    return loss, given - others.max(axis=1), wrong
