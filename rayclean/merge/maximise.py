"""Expectation maximisation of the joint model over rows whose labels the beliefs have not seen [our choice].

What is maximised, and why so, is told in `rayclean.merge.blind`, which decides between fits.

Letters: N rows, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rayclean.merge.joint import Float64, Ints
from rayclean.merge.transition import (
    adjusted,
    class_shares,
    find_anchors,
    noisier,
    pooled_transition,
    surest,
    unclaimed,
)
from rayclean.schema import DROPPED, NO_LABEL, Array
from rayclean.scores.sources import BELIEF_FLOOR

STEPS = 20
ANCHOR_SHARE = 0.2
ANCHOR_WEIGHT = 3.0  # of their T beside counts, in times their number
NOISE_ROWS = 20_000  # that the interval is found by
NONE_START = 0.02
# Of `sharpness_of`.
NEAR_TIE = 0.25  # of the median gap
USUAL_TIES = 0.155  # of linear heads and votes of neighbours on features that leave a fifth to a half unclear
TIES_POWER = 0.8
FACTORS = (0.8, 2.0)


def sharpness_of(gap: Float64, base: float) -> float:
    """How many times the log beliefs count.

    A classifier that knows its classes leaves few rows between two of them, whatever the labels are like: where few
    rows are nearly tied it is right more often than it says, since it says how the labels are. Of the rows' gaps
    between the two largest U the share under a quarter of the median tells: .155 where a fifth to a half of all images
    is unclear, .03 to .14 of strong networks, which want up to twice the sharpness.

    Args:
        gap: (N,) not negative.
        base: the sharpness where the share is as usual.
    """
    middle = float(np.median(gap))
    ties = float((gap < NEAR_TIE * middle).mean())
    # No near tie at all is the surest classifier; no gap at all is one that says nothing, and is not sharpened.
    if not ties:
        return base * FACTORS[1] if middle else base
    return base * float(np.clip((USUAL_TIES / ties) ** TIES_POWER, *FACTORS))


@dataclass(frozen=True)
class Start:
    """What a maximisation starts from; rows are in the order of their labels.

    Attributes:
        log_mean: (K,) log b.
        adjusted: (N, K) U.
        unclaimed: (N,) R.
        usually_unclaimed: what R is relative to.
        labels: (N,) ascending.
        starts: where each label that is there starts.
        verified: (N,) true classes that are known, `NO_LABEL` elsewhere, `DROPPED` for none of them.
        anchors: (K, K) A.
        weight: w.
        shares: (K,) of the labels.
        agreement: share of rows whose belief is surest of their labels.
    """

    log_mean: Float64
    adjusted: Float64
    unclaimed: Float64
    usually_unclaimed: float
    labels: Ints
    starts: Ints
    verified: Ints
    sharpness: float
    anchors: Float64
    weight: float
    num_anchors: int
    shares: Float64
    agreement: float

    def sharper(self, factor: float) -> Start:
        """The same with so many times the sharpness, on `NOISE_ROWS` rows at most."""
        # Rows stand in the order of their labels, so every m-th of them keeps the labels' shares.
        step = max(1, len(self.labels) // NOISE_ROWS)
        labels = self.labels[::step]
        return replace(
            self,
            adjusted=self.adjusted[::step],
            unclaimed=self.unclaimed[::step],
            labels=labels,
            starts=np.flatnonzero(np.diff(labels, prepend=-1)),
            verified=self.verified[::step],
            sharpness=factor * self.sharpness,
            weight=self.weight / step,
        )


def start_of(beliefs: Float64, given: Ints, base: float, verified: Ints | None) -> Start:
    """What a maximisation over rows starts from; see `fit_blind` for the arguments."""
    num_classes = beliefs.shape[1]
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    belief = adjusted(beliefs, log_mean)
    top, gap = surest(belief)
    anchors, classes = find_anchors(top, gap, ANCHOR_SHARE)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (classes, given[anchors]), 1)
    # In the order of labels counts are sums of slices (`reduceat`), not scattered adds.
    order = np.argsort(given, kind="stable")
    rest = unclaimed(belief)
    # The logarithm of the mean, not the mean of logarithms: what the likeliest class leaves is then 1 on average.
    usual = float(np.log(np.exp(rest).mean()))
    labels = given[order]
    return Start(
        log_mean=log_mean,
        adjusted=belief[order],
        unclaimed=rest[order] - usual,
        usually_unclaimed=usual,
        labels=labels,
        starts=np.flatnonzero(np.diff(labels, prepend=-1)),
        verified=np.full(len(given), NO_LABEL) if verified is None else verified[order],
        sharpness=sharpness_of(gap, base),
        anchors=pooled_transition(counts, clumping=1.0),
        weight=ANCHOR_WEIGHT * len(anchors) / num_classes,
        num_anchors=len(anchors),
        shares=class_shares(np.bincount(given, minlength=num_classes)),
        agreement=float((top == given).mean()),
    )


class How(NamedTuple):
    """What a maximisation may change.

    Attributes:
        balanced: whether all classes are taken for equally large.
        counted: whether T is counted over all rows, or only made noisier than the anchors'.
        none: whether rows may be of none of the classes.
    """

    balanced: bool
    counted: bool
    none: bool


@dataclass(frozen=True)
class Fit:
    """Where a maximisation ended.

    Attributes:
        none: its weight in the prior.
        none_share: of the rows.
        wrong: share of wrong labels.
        log_likelihood: mean per row.
    """

    transition: Float64
    prior: Float64
    none: float
    none_share: float
    wrong: float
    log_likelihood: float


def maximise(start: Start, how: How) -> Fit:
    """Expectation maximisation: `STEPS` steps from the anchors' T, towards which it stays drawn."""
    rows, num_classes = start, len(start.shares)
    columns = np.append(rows.adjusted, rows.unclaimed[:, None], axis=1)
    scaled = rows.sharpness * columns
    # Relative to each row's largest, which normalising takes out again: exp of it alone may overflow.
    evidence = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    labels_of = np.vstack([rows.anchors, rows.shares])
    # A prior of 0 stays 0 in every step, so without `none` its column is there and says nothing.
    prior = np.append(np.full(num_classes, 1 / num_classes), 0.0)
    if how.none:
        prior = np.append(prior[:-1] * (1 - NONE_START), NONE_START)
    for step in range(STEPS + 1):
        seen = evidence * prior
        seen /= seen.sum(axis=1, keepdims=True)
        posterior = seen * labels_of[:, rows.labels].T
        likelihood = posterior.sum(axis=1)
        posterior /= likelihood[:, None]
        # After the likelihood: what people say moves the counts, and not how well the model explains the labels.
        _confirm(posterior, rows.verified)
        # The last turn only judges, so that the posterior belongs to the T and the prior that are returned.
        if step == STEPS:
            break
        counts = np.zeros((num_classes, num_classes))
        counts[:, rows.labels[rows.starts]] = np.add.reduceat(posterior[:, :-1], rows.starts, axis=0).T
        labels_of[:-1] = _next_transition(counts, rows, how.counted)
        prior = _next_prior(posterior, seen, prior, how.balanced)
    right = posterior[np.arange(len(posterior)), rows.labels]
    return Fit(
        transition=labels_of[:-1],
        prior=prior[:-1] / prior[:-1].sum(),
        none=float(prior[-1]),
        none_share=float(posterior[:, -1].mean()),
        wrong=float(1 - right.mean()),
        log_likelihood=float(np.log(likelihood).mean()),
    )


def _next_transition(counts: Float64, start: Start, counted: bool) -> Float64:
    """T (K, K) by labels counted by believed class, beside the anchors' or as far as they tell how many are wrong."""
    if counted:
        whole = counts + start.weight * start.anchors
        result: Float64 = whole / whole.sum(axis=1, keepdims=True)
        return result
    if not counts.any():  # people say of all rows that they are of none of the classes
        return start.anchors
    wrong = 1 - np.trace(counts) / counts.sum()
    by_anchors = float(counts.sum(axis=1) @ (1 - np.diag(start.anchors))) / counts.sum()
    return noisier(start.anchors, float(odds(wrong) / odds(by_anchors)))


def odds(share: float) -> float:
    """Of a share from 0 to 1, kept finite and above 0."""
    inside = min(max(share, 1e-6), 1 - 1e-6)
    return inside / (1 - inside)


def _next_prior(posterior: Float64, seen: Float64, prior: Float64, balanced: bool) -> Float64:
    """The prior (K + 1,) under which what is believed with the labels is as large as without them."""
    there = prior > 0
    expected = np.where(there, seen.mean(axis=0) / np.where(there, prior, 1), 1)
    believed = np.maximum(posterior.mean(axis=0), 1e-12)  # no class becomes impossible
    found: Float64 = np.where(there, believed / np.maximum(expected, 1e-12), 0)
    found /= found.sum()
    if balanced:
        found[:-1] = found[:-1].mean()
    return found


def _confirm(posterior: Array, verified: Ints) -> None:
    """Puts what people say in place of what is believed."""
    known = np.flatnonzero((verified >= 0) | (verified == DROPPED))
    posterior[known] = 0
    posterior[known, np.where(verified[known] == DROPPED, posterior.shape[1] - 1, verified[known])] = 1
