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

import numpy as np

from rayclean.merge.joint import Float64, Ints, JointModel
from rayclean.merge.maximise import Fit, How, Start, maximise, odds, start_of

# Counts taken always cost AUROC: .936 for .941 on asymmetric noise, .79 for .81 on Roman numerals.
COUNTED = 0.05  # nats per row that counts must explain better than the anchors' T, to be believed
# Belief and label err together on what is hard for both, the more of them the more classes there are.
TEMPER = 0.8  # of 10 classes
TEMPER_POWER = 0.15
# Within these factors of the sharpness the noise rate lies.
NOISE_FACTORS = (0.6, 3.0)
NOISE_SLACK = 0.1  # of either end: labels that are wrong where belief is wrong alike
# Free shares cost asymmetric noise .004 AUROC; step and long tail gain .046 nats by them and need them (.974 for .930).
BALANCED = 0.02  # nats per row that classes of unequal shares must explain better, to be believed
# Found where there are such rows (Roman numerals): .09 of all and .023 nats; elsewhere .02 at most and under .004.
LEAST_NONE = 0.022  # share of rows of none of the classes, from which on they are believed in
NONE_GAIN = 0.0035  # nats per row that they must explain better


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
        verified: (N,) what people say, `NO_LABEL` where nobody has looked, `DROPPED` for none of the classes.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if beliefs.ndim != 2 or given.shape != beliefs.shape[:1] or not len(given):
        raise ValueError(f"beliefs (N, K) and labels (N,) expected, found {beliefs.shape} and {given.shape}")
    started = start_of(beliefs, given, base, verified)
    found, how = _best(started)
    if none:
        with_none = maximise(started, how._replace(none=True))
        gain = with_none.log_likelihood - found.log_likelihood
        found = with_none if with_none.none_share >= LEAST_NONE and gain >= NONE_GAIN else found
    how = how._replace(none=found.none > 0)
    # With the freedoms of the fit that was taken, so that the sharpness alone makes the interval.
    rates = [maximise(started.sharper(factor), how) for factor in NOISE_FACTORS]
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
    """How well beliefs explain labels: mean log likelihood per row, of the model that is fitted to them."""
    return _best(start_of(beliefs, given, base, None))[0].log_likelihood


def _best(start: Start) -> tuple[Fit, How]:
    """The plainest fit that no freer one is clearly better than."""
    how = How(balanced=True, counted=False, none=False)
    found = maximise(start, how)
    for freer, least in ((how._replace(counted=True), COUNTED), (how._replace(balanced=False), BALANCED)):
        # A freedom that has been believed stays while the next one is tried.
        other = maximise(start, freer._replace(counted=how.counted or freer.counted))
        if other.log_likelihood - found.log_likelihood >= least:
            how, found = freer._replace(counted=how.counted or freer.counted), other
    return found, how
