"""Which rows to train on, with which labels: pure functions of scores and beliefs.

A lesson has a label for each row, `LEFT_OUT` where it is not trained on. Letters: N rows.
"""

from __future__ import annotations

import numpy as np

from rayclean.schema import LEFT_OUT, Array


def retrain_cut(given: Array, label_score: Array, cut: float) -> Array:
    """Labels of rows whose label is right with probability `cut` or more.

    Args:
        given: (N,) labels.
        label_score: (N,) P(given label is right).
        cut: 0 to 1; 0 keeps all.

    Returns:
        (N,) int32, `LEFT_OUT` where not trained on.
    """
    return np.where(label_score >= cut, given, LEFT_OUT).astype(np.int32)


def retrain_predicted(
    given: Array, label_score: Array, predicted: Array, predicted_score: Array, cut: float, sure: float
) -> Array:
    """As `retrain_cut`, but a row that is cut gets the predicted label where that is sure.

    Args:
        given: (N,) labels.
        label_score: (N,).
        predicted: (N,) the most likely class; `NONE_OF_CLASSES`, which leaves the row out.
        predicted_score: (N,) its probability.
        cut: of `label_score`.
        sure: of `predicted_score`.

    Returns:
        (N,) int32, `LEFT_OUT` where not trained on.
    """
    kept = retrain_cut(given, label_score, cut)
    return np.where((kept == LEFT_OUT) & (predicted_score >= sure), predicted, kept).astype(np.int32)


def without(labels: Array, removed: Array) -> Array:
    """(N,) int32: labels with some rows (bool) left out besides."""
    return np.where(removed, LEFT_OUT, labels).astype(np.int32)


def largest_losses(losses: Array, among: Array, count: int) -> Array:
    """The `count` rows of the largest loss, ties by the smaller row: small-loss selection removes them.

    Args:
        losses: (N,).
        among: (N,) bool, rows that may be taken.
        count: at most as many as these.

    Returns:
        (N,) bool.
    """
    rows = np.flatnonzero(among)
    worst = rows[np.argsort(-losses[rows], kind="stable")[:count]]
    taken = np.zeros(len(losses), bool)
    taken[worst] = True
    return taken


def relabelled(labels: Array, probabilities: Array, sure: float) -> Array:
    """The corrected set that a new network is trained on (Influential Rank, 3.3).

    A removed row gets the last classifier's label. Of these the rows with a softmax above `sure` (S) stay; rows that
    were never removed stay with their labels whatever the softmax [our choice: the paper says "among the corrected
    training data", which may be read as all].

    Args:
        labels: (N,) int32, `LEFT_OUT` where removed.
        probabilities: (N, K) of the last classifier.
        sure: S.

    Returns:
        (N,) int32, `LEFT_OUT` where not trained on.
    """
    predicted = probabilities.argmax(axis=1)
    is_sure = probabilities[np.arange(len(labels)), predicted] > sure
    return np.where((labels == LEFT_OUT) & is_sure, predicted, labels).astype(np.int32)
