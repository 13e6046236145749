"""Expectation maximisation for two components of one score, for all that need it: the merge, votes, learning.

Letters: N rows, sorted by score; F features of a score, in which a component's log density is linear or
quadratic: (log s, -log(1 - s)) for beta densities, the standardised score itself for Gaussians. With weights, a row
stands for many: a bin of a histogram for the rows in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# .03: low noise rates are not found from .1.
START_QUANTILES = (0.5, 0.03, 0.1, 0.25, 0.75, 0.9)
# Keeps every component's weight above 0 (Arazo et al. floor the responsibilities alike).
RESPONSIBILITY_FLOOR = 1e-12
# a + b of a beta component. Its variance is m (1 - m) / (a + b + 1), so the bounds hold it away from 0 (one
# value taking a component for itself, with infinite likelihood) and from m (1 - m), where a and b pass 0.
CONCENTRATION = (0.02, 1e4)
# Variance of a Gaussian component of scores that have variance 1.
MIN_VARIANCE = 1e-3


class Ending(NamedTuple):
    """When the iteration ends, in sklearn's words."""

    max_iter: int
    tol: float  # change of the mean log-likelihood per row


ENDING = Ending(500, 1e-7)


class Component(NamedTuple):
    """Mean and shape: a + b of a beta density, the standard deviation of a Gaussian."""

    mean: float
    shape: float


class Family(NamedTuple):
    """What expectation maximisation needs of a density."""

    log_density: Callable[[Float64, Component], Float64]  # (N, F) features -> (N,)
    shape: Callable[[float, float], float]  # mean, variance -> shape


class TwoComponents(NamedTuple):
    """A fit: the component of the larger mean, called clean, and its share of the rows first."""

    clean: Component
    noisy: Component
    clean_weight: float
    responsibilities: Float64  # (N,) P(clean component | score)
    log_likelihood: float  # mean per row

    def clean_first(self) -> TwoComponents:
        """The same with the component of the larger mean first."""
        if self.clean.mean >= self.noisy.mean:
            return self
        return TwoComponents(
            self.noisy, self.clean, 1.0 - self.clean_weight, 1.0 - self.responsibilities, self.log_likelihood
        )

    def posterior(self, features: Float64, family: Family) -> Float64:
        """P(clean component) of any features (N, F), (N,)."""
        log_clean = family.log_density(features, self.clean) + np.log(self.clean_weight)
        log_noisy = family.log_density(features, self.noisy) + np.log(1.0 - self.clean_weight)
        return np.asarray(np.exp(log_clean - np.logaddexp(log_clean, log_noisy)), np.float64)


def _beta_log_density(features: Float64, component: Component) -> Float64:
    a = component.mean * component.shape
    b = component.shape - a
    return (a - 1.0) * features[:, 0] - (b - 1.0) * features[:, 1] - float(scipy.special.betaln(a, b))


def _beta_shape(mean: float, variance: float) -> float:
    spread = mean * (1.0 - mean)
    return min(max(spread / max(variance, 1e-300) - 1.0, CONCENTRATION[0]), CONCENTRATION[1])


def _gauss_log_density(features: Float64, component: Component) -> Float64:
    standard = (features[:, 0] - component.mean) / component.shape
    return -0.5 * standard**2 - math.log(component.shape) - 0.5 * math.log(2.0 * math.pi)


def _gauss_shape(_mean: float, variance: float) -> float:
    return math.sqrt(max(variance, MIN_VARIANCE))


BETA = Family(_beta_log_density, _beta_shape)
GAUSS = Family(_gauss_log_density, _gauss_shape)


def fit_two_components(
    values: Float64, features: Float64, family: Family, weights: Float64 | None = None
) -> TwoComponents:
    """Fit by expectation maximisation from several splits of the rows; the best log-likelihood wins.

    The M-step of a beta density matches weighted moments (Arazo et al., ICML 2019), which is not the maximum
    of the likelihood: a step may lower it a little, so the end is a change below ENDING.tol.

    Args:
        values: (N,) sorted scores, for the moments; at least two different ones.
        features: (N, F) of these, finite, for the densities.
        family: BETA or GAUSS.
        weights: (N,) > 0, how many rows each one stands for; None where all count once.
    """
    starts = (_above(quantile, len(values), weights) for quantile in START_QUANTILES)
    fits = [_iterate(values, features, family, upper, weights, ENDING) for upper in starts]
    return max(fits, key=lambda fit: fit.log_likelihood).clean_first()  # the first of equals


def fit_as_sklearn(
    values: Float64, upper: Float64, ending: Ending, reg_covar: float, weights: Float64 | None = None
) -> TwoComponents:
    """Fit two Gaussians as sklearn's `GaussianMixture` iterates, from a start that is given: nothing is random.

    Args:
        values: (N,) in any order.
        upper: (N,) in [0, 1], how much of each belongs to the first component before the first step.
        ending: sklearn's.
        reg_covar: sklearn's, added to every variance.
        weights: (N,) > 0, how many rows each one stands for; None where all count once.

    Returns:
        The components of the last M-step, with which sklearn ends; the rest is of the step before.
    """
    family = Family(_gauss_log_density, lambda _, variance: math.sqrt(variance + reg_covar))
    fit = _iterate(values, values[:, None], family, upper, weights, ending)
    components = _maximised(values, fit.responsibilities, family, weights)
    return TwoComponents(*components, fit.responsibilities, fit.log_likelihood).clean_first()


def _iterate(
    values: Float64, features: Float64, family: Family, upper: Float64, weights: Float64 | None, ending: Ending
) -> TwoComponents:
    """Expectation maximisation from given responsibilities of the first component, (N,) in [0, 1]."""
    previous = -math.inf
    for _ in range(ending.max_iter):
        first, second, weight = _maximised(values, upper, family, weights)
        log_first = family.log_density(features, first) + math.log(weight)
        log_second = family.log_density(features, second) + math.log1p(-weight)
        # Bayes' rule in logarithms: far from both components each density is 0 in float64.
        upper = scipy.special.expit(log_first - log_second)
        log_likelihood = _mean(np.logaddexp(log_first, log_second), weights)
        if abs(log_likelihood - previous) < ending.tol:
            break
        previous = log_likelihood
    return TwoComponents(first, second, weight, upper, log_likelihood)


def _maximised(
    values: Float64, upper: Float64, family: Family, weights: Float64 | None
) -> tuple[Component, Component, float]:
    """M-step: both components, and the share of the first."""
    upper = np.clip(upper, RESPONSIBILITY_FLOOR, 1.0 - RESPONSIBILITY_FLOOR)
    first, second = (_component(values, each, family, weights) for each in (upper, 1.0 - upper))
    return first, second, _mean(upper, weights)


def _above(quantile: float, num_rows: int, weights: Float64 | None) -> Float64:
    """1 for rows of which at least a share of `quantile` lies before, else 0; (N,)."""
    if weights is None:
        return (np.arange(num_rows) >= quantile * num_rows).astype(np.float64)
    before = np.cumsum(weights) - weights
    return np.asarray(before >= quantile * weights.sum(), np.float64)


def _mean(values: Float64, weights: Float64 | None) -> float:
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def _component(values: Float64, responsibilities: Float64, family: Family, weights: Float64 | None) -> Component:
    """M-step: the component of the same weighted mean and variance."""
    if weights is not None:
        responsibilities = responsibilities * weights
    total = responsibilities.sum()
    mean = float((responsibilities * values).sum() / total)
    # Around the mean itself: a mean of squares less a squared mean loses the digits of a narrow component.
    variance = float((responsibilities * (values - mean) ** 2).sum() / total)
    return Component(mean, family.shape(mean, variance))
