"""From a score to P(label right) by a strictly increasing map.

The posterior of a two-component mixture is often not monotone in the score: the wider component owns both
tails. So its log-odds are replaced by the nearest increasing line in the features in which they are linear,
then bounded, so that the order survives in float32.

Letters: N rows, F features of a score (two for beta densities, one for Gaussians).
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

LOG_ODDS_BOUND = 15.0
# Up to here (P = .982) the log-odds are published as they are; past it they grow like a logarithm.
LINEAR_UP_TO = 4.0
# A slope of exactly 0 would tie all scores in one of the two tails: with no weight on log(1 - s), all that is
# saturated at 1 becomes equal in float32. This much moves 1e-12 from 1e-3 by .4 and changes nothing else.
SLOPE_FLOOR = 0.02
# Two densities cannot be trusted further into their tails; it also keeps the line finite where they do not
# overlap at all, as a logistic fit to hard labels would run off to infinity.
RESPONSIBILITY_MARGIN = 1e-4


def log_features(scores: Float64, one_minus: Float64 | None) -> Float64:
    """Return log s and -log(1 - s), the directions in which beta log-odds are linear.

    Both grow with s. Each logarithm takes the smaller of s and 1 - s, the one that is known precisely.

    Args:
        scores: (N,) in [0, 1].
        one_minus: (N,) 1 - s, computed without cancellation; None takes it from `scores`.

    Returns:
        (N, 2) float64, -inf or inf at s = 0 and s = 1, never NaN for a score that is not NaN.
    """
    rest = 1.0 - scores if one_minus is None else one_minus
    low = scores < 0.5
    with np.errstate(divide="ignore"):
        log_s = np.where(low, np.log(scores), np.log1p(-np.where(low, 0.0, rest)))
        log_rest = np.where(low, np.log1p(-np.where(low, scores, 0.0)), np.log(rest))
    return np.stack([log_s, -log_rest], axis=1)


def fit_log_odds(features: Float64, responsibilities: Float64) -> tuple[float, Float64]:
    """Fit log-odds = c + features @ slopes, slopes >= SLOPE_FLOOR, to soft labels by cross-entropy.

    Args:
        features: (N, F) finite, each growing with the score.
        responsibilities: (N,) P(clean component), in [0, 1].

    Returns:
        The intercept, and (F,) slopes. Where all slopes are at the floor, no increasing line says more
        than the prior.
    """
    target = np.clip(responsibilities, RESPONSIBILITY_MARGIN, 1.0 - RESPONSIBILITY_MARGIN)
    design = np.column_stack([np.ones(len(features)), features])

    def cross_entropy(weights: Float64) -> float:
        log_odds = (design * weights).sum(axis=1)
        return float(np.mean(np.logaddexp(0.0, log_odds) - target * log_odds))

    def gradient(weights: Float64) -> Float64:
        wrong_by = scipy.special.expit((design * weights).sum(axis=1)) - target
        return np.asarray(np.mean(wrong_by[:, None] * design, axis=0))

    slope_bounds = np.full(features.shape[1], SLOPE_FLOOR)
    bounds = scipy.optimize.Bounds(np.append(-np.inf, slope_bounds), np.full(design.shape[1], np.inf))
    start = np.append(0.0, np.ones(features.shape[1]))
    best = scipy.optimize.minimize(
        cross_entropy,
        start,
        jac=gradient,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    ).x
    return float(best[0]), np.asarray(best[1:], dtype=np.float64)


def squash(log_odds: Float64) -> Float64:
    """Bound log-odds to [-15, 15], strictly increasing; the identity up to +-4.

    Past 4 it is 4 + 11 tanh(log(1 + |x| - 4) / 11): the distance of P from 1 then shrinks about like 1/|x|
    and not like exp(-|x|), so that the 3e5 float32 numbers between P(4) and 1 are used evenly.
    """
    size = np.abs(log_odds)
    room = LOG_ODDS_BOUND - LINEAR_UP_TO
    beyond = np.log1p(np.maximum(size - LINEAR_UP_TO, 0.0))
    bounded = np.minimum(size, LINEAR_UP_TO) + room * np.tanh(beyond / room)
    return np.copysign(bounded, log_odds)


def probability(log_odds: Float64) -> NDArray[np.float32]:
    """Return the bounded P(label right), (N,) float32, of (N,) log-odds, which may be infinite.

    Never decreasing. Above P = .5, where float32 numbers are 6e-8 apart, log-odds become equal that differ by
    less than 3e-6 at 4, .001 at 20, .1 at 200, 7 at 2,000. Below .5 this limit is of no matter.
    """
    return scipy.special.expit(squash(log_odds)).astype(np.float32)
