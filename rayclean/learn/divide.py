"""From scores to a labelled and an unlabelled part: co-divide (DivideMix, section 3.1; INN, appendix D.1).

Scores become cleanness in [0, 1], higher = cleaner: one minus the min-max normalised loss for two Gaussians, the score
itself for two beta densities. The mixture is fitted to a histogram: what it costs does not hang on the number of rows,
and histograms of parts of the rows could be added. P(clean) is then taken of each row's own value.

Letters: N rows, M bins that are not empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from rayclean.merge.monotone import log_features
from rayclean.schema import Array
from rayclean.scores.em import BETA, GAUSS, Component, Ending, fit_as_sklearn, fit_two_components

Float64 = NDArray[np.float64]

NUM_BINS = 4096
BLOCK = 2**20  # rows that are in memory as float64 together
# Of sklearn's GaussianMixture in the authors' code.
ENDING = Ending(max_iter=10, tol=1e-2)
REG_COVAR = 5e-4
# Beta scores nearer to 0 or 1 are moved here (as in Arazo et al.'s code).
BETA_MARGIN = 1e-4


class Histogram(NamedTuple):
    """Values by bin, ascending: the mean of each bin's values (M,) float64 and how many there are (M,) float64."""

    values: Float64
    counts: Float64


class Clean(NamedTuple):
    """P(clean) and the mixture that it comes from.

    Attributes:
        posterior: (N,) float32 in [0, 1].
        clean_mean: of the cleaner component, on the scale of cleanness; of all rows where nothing was fitted.
        noisy_mean: of the other; of all rows where nothing was fitted.
    """

    posterior: Array
    clean_mean: float
    noisy_mean: float


@dataclass(frozen=True)
class Split:
    """What one network thinks of some rows; the other one is trained on it.

    Attributes:
        clean: (N,) float32, w of the rows.
        is_labelled: (N,) bool, rows that keep their label.
        facts: plain numbers: `labelled_share`, `clean_posterior` (its mean), `clean_mean`, `noisy_mean` (of the
            components, on the scale of cleanness) and `by_order`: 1 where P(clean) alone would have left too few rows
            on one side, so that the order of the rows decided who fills it up.
    """

    clean: Array
    is_labelled: Array
    facts: dict[str, float]


def cleanness(scores: Array, mixture: str, is_loss: bool) -> Array:
    """Scores on a scale where higher = cleaner.

    Args:
        scores: (N,) finite; losses, or scores of which higher ones are cleaner.
        mixture: `gauss`: min-max normalised over the rows, as the authors do with losses. Else as it is: a score is
            in [0, 1]; of a loss it is exp(-loss), the probability of the label.
        is_loss: lower is cleaner.

    Returns:
        (N,) float32 in [0, 1]; all 1 where scores are constant and normalised.
    """
    if mixture != "gauss":
        return np.asarray(np.exp(-scores) if is_loss else np.clip(scores, 0, 1), np.float32)
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        return np.ones(len(scores), np.float32)
    position = (scores - np.float32(low)) / np.float32(high - low)
    return np.asarray(np.clip(1 - position if is_loss else position, 0, 1), np.float32)


def clean_posterior(values: Array, mixture: str) -> Clean:
    """P(clean) of rows by two components of their cleanness, the cleaner one that of the larger mean.

    `gauss`: the posterior as it is, as the authors have it. `beta`: made to grow with the value [our choice, after
    Arazo et al., who do so beyond its maximum]: the wider of two densities owns both tails. `none`: the value itself
    is the probability.

    Args:
        values: (N,) float32 in [0, 1].
        mixture: `gauss`, `beta` or `none`.

    Returns:
        P(clean); 1 for all rows where values are constant, since nothing then speaks against any label [our choice].
    """
    if mixture == "none":
        return _not_fitted(values, values)
    histogram = _histogram(values, _logit_bins if mixture == "beta" else _even_bins)
    if len(histogram.values) < 2:
        return _not_fitted(np.ones(len(values)), values)
    fit = _fit_beta if mixture == "beta" else _fit_gauss
    posterior, clean_mean, noisy_mean = fit(histogram)
    found = [posterior(block).astype(np.float32) for block in _blocks(values)]
    return Clean(np.concatenate(found), clean_mean, noisy_mean)


def _not_fitted(posterior: Array, values: Array) -> Clean:
    mean = float(values.mean(dtype=np.float64))
    return Clean(posterior.astype(np.float32), mean, mean)


def split_rows(values: Array, clean: Clean, threshold: float, least: int) -> Split:
    """Rows whose P(clean) passes the threshold keep their label; the others lose it.

    The authors' code breaks where a side is empty. Here each side has `least` rows, or half of all where there are
    fewer than twice as many: the next rows in order of P(clean), then of cleanness, then of position, fill the
    labelled part, with at least `threshold` as their weight, and the next ones from below the unlabelled part. Where
    every row passes, there is no unlabelled part [our choice].

    Args:
        values: (N,) cleanness.
        clean: of the same rows.
        threshold: `p_threshold`.
        least: one batch of all ranks.
    """
    posterior = clean.posterior
    is_labelled = posterior > threshold
    num_labelled, num_rows = int(is_labelled.sum()), len(posterior)
    least = max(min(least, num_rows // 2), 1)
    by_order = num_labelled < least or 0 < num_rows - num_labelled < least
    if by_order:
        order = np.lexsort((np.arange(num_rows), -values, -posterior))
        num_labelled = max(num_labelled, least) if num_labelled < least else num_rows - least
        is_labelled = np.zeros(num_rows, np.bool_)
        is_labelled[order[:num_labelled]] = True
        posterior = np.where(is_labelled, np.maximum(posterior, np.float32(threshold)), posterior)
    facts = {
        "labelled_share": num_labelled / num_rows,
        "clean_posterior": float(clean.posterior.mean(dtype=np.float64)),
        "clean_mean": clean.clean_mean,
        "noisy_mean": clean.noisy_mean,
        "by_order": float(by_order),
    }
    return Split(posterior, is_labelled, facts)


def _blocks(values: Array) -> Iterator[Float64]:
    for start in range(0, len(values), BLOCK):
        yield values[start : start + BLOCK].astype(np.float64)


def _even_bins(values: Float64) -> Float64:
    return values * NUM_BINS


def _logit_bins(values: Float64) -> Float64:
    """Bins of even width in log-odds: near 0 and 1 beta densities turn on the digits that even bins drop."""
    edge = float(logit(1 - BETA_MARGIN))
    return (logit(_inside(values)) + edge) * (NUM_BINS / (2 * edge))


def _inside(values: Float64) -> Float64:
    return np.clip(values, BETA_MARGIN, 1 - BETA_MARGIN)


def _histogram(values: Array, bins: Callable[[Float64], Float64]) -> Histogram:
    counts, sums = np.zeros(NUM_BINS), np.zeros(NUM_BINS)
    for block in _blocks(values):
        index = np.clip(bins(block).astype(np.int64), 0, NUM_BINS - 1)
        counts += np.bincount(index, minlength=NUM_BINS)
        sums += np.bincount(index, weights=block, minlength=NUM_BINS)
    there = counts > 0
    return Histogram(sums[there] / counts[there], counts[there])


Posterior = Callable[[Float64], Float64]


def _fit_gauss(histogram: Histogram) -> tuple[Posterior, float, float]:
    """Two Gaussians by expectation maximisation from two means, as sklearn's GaussianMixture iterates.

    Its k-means starts from random rows; here the best cut of the histogram is found, so that nothing is random.
    """
    fit = fit_as_sklearn(histogram.values, _two_means(histogram), ENDING, REG_COVAR, histogram.counts)
    return lambda values: fit.posterior(values[:, None], GAUSS), fit.clean.mean, fit.noisy.mean


def _two_means(histogram: Histogram) -> Float64:
    """1 for the bins of the upper of two clusters, (M,): the cut with the least squared distance from the means."""
    values, counts = histogram
    below, total = np.cumsum(counts)[:-1], counts.sum()
    mean_below = np.cumsum(counts * values)[:-1] / below
    mean_above = ((counts @ values) - mean_below * below) / (total - below)
    between = below * (total - below) * (mean_above - mean_below) ** 2
    return np.asarray(np.arange(len(values)) > between.argmax(), np.float64)


def _fit_beta(histogram: Histogram) -> tuple[Posterior, float, float]:
    """Two beta densities by the moments of Arazo et al. (scores/em.py), looked up on a grid."""
    values = _inside(histogram.values)
    fit = fit_two_components(values, log_features(values, None), BETA, histogram.counts)
    edge = float(logit(1 - BETA_MARGIN))
    grid = np.linspace(-edge, edge, NUM_BINS + 1)
    at_grid = 1 / (1 + np.exp(-grid))
    raised = _growing(fit.posterior(log_features(at_grid, None), BETA), at_grid, fit.noisy)

    def posterior(values: Float64) -> Float64:
        return np.asarray(np.interp(logit(_inside(values)), grid, raised), np.float64)

    return posterior, fit.clean.mean, fit.noisy.mean


def _growing(posterior: Float64, values: Float64, noisy: Component) -> Float64:
    """The posterior on a grid, made to grow in both directions from the noisy component's mean."""
    start = int(np.searchsorted(values, noisy.mean))
    below = np.minimum.accumulate(posterior[:start][::-1])[::-1]
    above = np.maximum.accumulate(posterior[start:])
    if len(below) and len(above):
        below = np.minimum(below, above[0])
    return np.concatenate([below, above])
