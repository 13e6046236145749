"""How labels go wrong: the transition matrix that all rows share, counted where beliefs are surest [our choice].

A row is an anchor of k where its belief is surest of k. What labels the anchors of k have is row k of T, drawn towards
a matrix of two values as far as the counts themselves ask for it.

Letters: N rows, K classes.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.schema import Array
from rayclean.scores.sources import BELIEF_FLOOR

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]

ANCHOR_SHARE = 0.2  # small: a sure row carries little of the network's own confusion, which looks like noise
MIN_ANCHORS = 20
UNCLAIMED_FLOOR = 1e-6
CLUMPING = 6.0  # 4 to 8 are within .001 AUROC of each other on the cells that it was chosen by
PSEUDO_COUNTS = np.geomspace(1, 1e5, 60).tolist()


def adjusted(beliefs: Float64, log_mean: Float64) -> Float64:
    """U: (N, K) log beliefs less those of the mean row."""
    result: Float64 = np.log(np.asarray(beliefs, np.float64) + BELIEF_FLOOR) - log_mean
    return result


def unclaimed(belief: Float64) -> Float64:
    """(N,) logarithm of what the likeliest class leaves, of log beliefs (N, K) up to a constant a row."""
    shares = np.exp(belief - scipy.special.logsumexp(belief, axis=1, keepdims=True))
    result: Float64 = np.log(np.maximum(1 - shares.max(axis=1), UNCLAIMED_FLOOR))
    return result


def surest(belief: Float64) -> tuple[Ints, Float64]:
    """The class that each row (N, K) is surest of, (N,), and the gap from its entry to the second largest, (N,)."""
    last_two = np.partition(belief, -2, axis=1)[:, -2:] if belief.shape[1] > 1 else np.zeros((len(belief), 2))
    return belief.argmax(axis=1), last_two[:, 1] - last_two[:, 0]


def find_anchors(top: Ints, gap: Float64, share: float = ANCHOR_SHARE, least: int = MIN_ANCHORS) -> tuple[Ints, Ints]:
    """The rows that are surest of each class: those of the largest gap between the two largest entries.

    Args:
        top: (N,) and
        gap: (N,) of `surest`.
        share: of the rows whose largest entry is k, that are anchors of k.
        least: anchors of k, where so many rows have it as their largest entry.

    Returns:
        Rows (A,), ascending, and the classes that they are sure of (A,). Ties go by row.
    """
    chosen = []
    for k in np.unique(top):
        here = np.flatnonzero(top == k)
        count = max(min(least, len(here)), int(np.ceil(share * len(here))))
        chosen.append(here[np.argsort(-gap[here], kind="stable")[:count]])
    rows = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    return rows, top[rows]


def class_shares(counts: Array) -> Float64:
    """Shares of the classes (K,) by counts (K,), none of which is impossible."""
    # One row more, shared out among all classes.
    positive = counts + 1 / len(counts)
    shares: Float64 = positive / positive.sum()
    return shares


def pooled_transition(counts: Float64, clumping: float = CLUMPING) -> Float64:
    """T from counts of (sure of k, given y), drawn towards a matrix with one value on the diagonal and one beside it.

    How strongly, the counts themselves say: by the number of pseudo-counts under which they are likeliest. It is small
    where each class turns into one other, and large where noise is spread evenly and the rest is chance; small classes
    borrow in either case. It is taken `clumping` times: anchors that have seen their labels err together, where the
    network confuses two classes, so they say less than as many rows apart.

    Args:
        counts: (K, K).
        clumping: 1 where they are apart.

    Returns:
        (K, K) rows sum to 1, no entry is 0.
    """
    num_classes, total = len(counts), counts.sum()
    # One more of each kind, so that no entry is 0: a label that no anchor has is rare, not impossible.
    right = (np.trace(counts) + 1) / (total + 2)
    pooled = np.full((num_classes, num_classes), (1 - right) / max(num_classes - 1, 1))
    np.fill_diagonal(pooled, right)
    weight = clumping * max(PSEUDO_COUNTS, key=lambda pseudo: _evidence(counts, pooled, pseudo))
    result: Float64 = (counts + weight * pooled) / (counts.sum(axis=1, keepdims=True) + weight)
    return result


def _evidence(counts: Float64, mean: Float64, pseudo: float) -> float:
    """Log likelihood of rows of counts that are multinomial, with Dirichlet rates of this mean and concentration."""
    # Entries without counts add nothing to the sum: gammaln(prior + 0) - gammaln(prior).
    seen = counts > 0
    prior = pseudo * mean[seen]
    rows = counts.sum(axis=1)
    of_rows = scipy.special.gammaln(pseudo) - scipy.special.gammaln(pseudo + rows)
    return float(of_rows.sum() + (scipy.special.gammaln(prior + counts[seen]) - scipy.special.gammaln(prior)).sum())


def noisier(transition: Float64, ratio: float) -> Float64:
    """T (K, K) whose odds of a wrong label are so many times as large in each class; T_kk = 1 stays."""
    wrong = 1 - np.diag(transition)
    more = wrong * ratio / (1 - wrong + wrong * ratio)
    result = transition * np.divide(more, wrong, out=np.ones_like(wrong), where=wrong > 0)[:, None]
    np.fill_diagonal(result, 1 - more)
    return result
