"""The joint model of beliefs that have not seen the labels of their rows: expectation maximisation [our choice].

Such a belief is evidence of the true class apart from the label, so all rows tell of T, not anchors alone: each step
judges the rows with T as it is,

    q_i(k) ~ prior_k exp(sharpness U_i[k]) T[k, y_i]

and takes for T either the matrix A of the anchors with its odds of a wrong label changed, in all classes alike, to the
share of labels that q finds wrong; or, where that explains the labels clearly better (many classes of few rows), the
counts sum_{i: y_i = y} q_i(k), with A beside them. Counts follow the classifier's own confusion, which A hardly does.

Labels and beliefs cannot tell how sharp beliefs should be: a row that the classifier is unsure of and a label that is
wrong look alike. Maximum likelihood takes all unsureness for real and finds too few wrong labels, since people err
where images are hard. So the sharpness is a rule (`sharpness_of`), and how far it may be wrong is told as an interval
of the noise rate.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.merge.joint import DROPPED, Float64, Ints, JointModel
from rayclean.merge.transition import (
    adjusted,
    class_shares,
    find_anchors,
    noisier,
    pooled_transition,
    surest,
    unclaimed,
)
from rayclean.scores.sources import BELIEF_FLOOR

STEPS = 20
ANCHOR_SHARE = 0.2
ANCHOR_WEIGHT = 3.0  # of their T beside counts, in times their number
COUNTED = 0.05  # nats a row that counts must explain better than the anchors' T, to be believed
# Belief and label err together on what is hard for both, the more of them the more classes there are.
TEMPER = 0.8  # of 10 classes
TEMPER_POWER = 0.15
# Of `sharpness_of`.
NEAR_TIE = 0.25  # of the median gap
USUAL_TIES = 0.155  # of linear heads and votes of neighbours on features that leave a fifth to a half unclear
TIES_POWER = 0.8
FACTORS = (0.8, 2.0)
# Within these factors of the sharpness the noise rate lies.
NOISE_FACTORS = (0.6, 3.0)
NOISE_SLACK = 0.1  # of either end: labels that are wrong where belief is wrong alike
NOISE_ROWS = 20_000  # that the interval is found by
BALANCED = 0.02  # nats a row that classes of unequal shares must explain better, to be believed
LEAST_NONE = 0.022  # share of rows of none of the classes, from which on they are believed in
NONE_GAIN = 0.0035  # nats a row that they must explain better
NONE_START = 0.02


@dataclass(frozen=True)
class _Start:
    """What a maximisation starts from; rows are in the order of their labels.

    Attributes:
        log_mean: (K,) log b.
        adjusted: (N, K) U.
        unclaimed: (N,) R.
        usually_unclaimed: what R is relative to.
        labels: (N,) ascending.
        starts: where each label that is there starts.
        verified: (N,) true classes that are known, -1 elsewhere, `DROPPED` for none of them.
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

    def sharper(self, factor: float) -> _Start:
        """The same with so many times the sharpness, on `NOISE_ROWS` rows at most."""
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


def _start(beliefs: Float64, given: Ints, base: float, verified: Ints | None) -> _Start:
    num_classes = beliefs.shape[1]
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    belief = adjusted(beliefs, log_mean)
    top, gap = surest(belief)
    anchors, classes = find_anchors(top, gap, ANCHOR_SHARE)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (classes, given[anchors]), 1)
    order = np.argsort(given, kind="stable")
    rest = unclaimed(belief)
    usual = float(np.log(np.exp(rest).mean()))
    labels = given[order]
    return _Start(
        log_mean=log_mean,
        adjusted=belief[order],
        unclaimed=rest[order] - usual,
        usually_unclaimed=usual,
        labels=labels,
        starts=np.flatnonzero(np.diff(labels, prepend=-1)),
        verified=np.full(len(given), -1) if verified is None else verified[order],
        sharpness=sharpness_of(gap, base),
        anchors=pooled_transition(counts, clumping=1.0),
        weight=ANCHOR_WEIGHT * len(anchors) / num_classes,
        num_anchors=len(anchors),
        shares=class_shares(np.bincount(given, minlength=num_classes)),
        agreement=float((top == given).mean()),
    )


class _How(NamedTuple):
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
class _Fit:
    """Where a maximisation ended.

    Attributes:
        none: its weight in the prior.
        none_share: of the rows.
        wrong: share of wrong labels.
        log_likelihood: mean a row.
    """

    transition: Float64
    prior: Float64
    none: float
    none_share: float
    wrong: float
    log_likelihood: float


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
    if not ties:
        return base * FACTORS[1] if middle else base
    return base * float(np.clip((USUAL_TIES / ties) ** TIES_POWER, *FACTORS))


def fit_blind(
    beliefs: Float64, given: Ints, base: float, none: bool = False, verified: Ints | None = None
) -> JointModel:
    """Fits T, the prior and the share of none of the classes to rows; no truth is used, nothing is random.

    Equal classes are taken for equal unless unequal ones explain the labels clearly better: free shares drift where
    one class turns into another.

    Args:
        beliefs: (N, K) of a random part of the rows, that have not seen these rows' labels; not negative.
        given: (N,) their labels.
        base: of `sharpness_of`.
        none: whether rows may be of none of the classes; their share is found, and 0 under `LEAST_NONE`.
        verified: (N,) what people say, -1 where nobody has looked, `DROPPED` for none of the classes.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if beliefs.ndim != 2 or given.shape != beliefs.shape[:1] or not len(given):
        raise ValueError(f"beliefs (N, K) and labels (N,) expected, found {beliefs.shape} and {given.shape}")
    started = _start(beliefs, given, base, verified)
    found, how = _best(started)
    if none:
        with_none = _maximise(started, how._replace(none=True))
        gain = with_none.log_likelihood - found.log_likelihood
        found = with_none if with_none.none_share >= LEAST_NONE and gain >= NONE_GAIN else found
    how = how._replace(none=found.none > 0)
    rates = [_maximise(started.sharper(factor), how) for factor in NOISE_FACTORS]
    return JointModel(
        log_mean=started.log_mean,
        transition=found.transition,
        prior=found.prior,
        sharpness=started.sharpness,
        lean=0.0,
        num_rows=len(given),
        num_anchors=started.num_anchors,
        agreement=started.agreement,
        none=found.none,
        unclaimed=started.usually_unclaimed,
        shares=started.shares,
        temper=min(1.0, TEMPER * (10 / len(started.shares)) ** TEMPER_POWER),
        # What is hard for both is not more often right than wrong.
        center=min(0.0, float(np.log(odds(1 - found.wrong)))),
        blind=True,
        noise=_interval([found.wrong, *(rate.wrong for rate in rates)]),
    )


def _interval(rates: Sequence[float]) -> tuple[float, float]:
    return (1 - NOISE_SLACK) * min(rates), min((1 + NOISE_SLACK) * max(rates), 1.0)


def explained(beliefs: Float64, given: Ints, base: float) -> float:
    """How well beliefs explain labels: mean log likelihood a row, of the model that is fitted to them."""
    return _best(_start(beliefs, given, base, None))[0].log_likelihood


def _best(start: _Start) -> tuple[_Fit, _How]:
    """The plainest fit that no freer one is clearly better than."""
    how = _How(balanced=True, counted=False, none=False)
    found = _maximise(start, how)
    for freer, least in ((how._replace(counted=True), COUNTED), (how._replace(balanced=False), BALANCED)):
        other = _maximise(start, freer._replace(counted=how.counted or freer.counted))
        if other.log_likelihood - found.log_likelihood >= least:
            how, found = freer._replace(counted=how.counted or freer.counted), other
    return found, how


def _maximise(start: _Start, how: _How) -> _Fit:
    """Expectation maximisation: `STEPS` steps from the anchors' T, towards which it stays drawn."""
    rows, num_classes = start, len(start.shares)
    columns = np.append(rows.adjusted, rows.unclaimed[:, None], axis=1)
    scaled = rows.sharpness * columns
    evidence = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    labels_of = np.vstack([rows.anchors, rows.shares])
    prior = np.append(np.full(num_classes, 1 / num_classes), 0.0)
    if how.none:
        prior = np.append(prior[:-1] * (1 - NONE_START), NONE_START)
    for step in range(STEPS + 1):
        seen = evidence * prior
        seen /= seen.sum(axis=1, keepdims=True)
        posterior = seen * labels_of[:, rows.labels].T
        likelihood = posterior.sum(axis=1)
        posterior /= likelihood[:, None]
        _confirm(posterior, rows.verified)
        if step == STEPS:
            break
        counts = np.zeros((num_classes, num_classes))
        counts[:, rows.labels[rows.starts]] = np.add.reduceat(posterior[:, :-1], rows.starts, axis=0).T
        labels_of[:-1] = _next_transition(counts, rows, how.counted)
        prior = _next_prior(posterior, seen, prior, how.balanced)
    right = posterior[np.arange(len(posterior)), rows.labels]
    return _Fit(
        transition=labels_of[:-1],
        prior=prior[:-1] / prior[:-1].sum(),
        none=float(prior[-1]),
        none_share=float(posterior[:, -1].mean()),
        wrong=float(1 - right.mean()),
        log_likelihood=float(np.log(likelihood).mean()),
    )


def _next_transition(counts: Float64, start: _Start, counted: bool) -> Float64:
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
    """Puts what people say in the place of what is believed."""
    known = np.flatnonzero((verified >= 0) | (verified == DROPPED))
    posterior[known] = 0
    posterior[known, np.where(verified[known] == DROPPED, posterior.shape[1] - 1, verified[known])] = 1
