"""Expectation maximisation: sklearn's steps from a given start, and weights that stand for rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.mixture import GaussianMixture

from rayclean.merge.monotone import log_features
from rayclean.schema import Array
from rayclean.scores.em import BETA, GAUSS, Ending, fit_as_sklearn, fit_two_components


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("seed", range(4))
def test_two_gaussians_are_those_of_sklearn(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.r_[rng.normal(0, 1, 300), rng.normal(3, 0.5, 50 * (seed + 1))]
    low, high = np.quantile(values, [0.25, 0.75])
    mixture = GaussianMixture(
        2,
        tol=0,
        max_iter=1 + steps,
        reg_covar=1e-3,
        weights_init=[0.5, 0.5],
        means_init=[[low], [high]],
        precisions_init=np.ones((2, 1, 1)),
    )
    with warnings.catch_warnings(action="ignore"):  # it has not converged
        mixture.fit(values[:, None])
    upper = expit((high - low) * (values - (low + high) / 2))
    found = fit_as_sklearn(values, upper, Ending(steps, 0.0), 1e-3)
    expected = [*mixture.means_[::-1, 0], *np.sqrt(mixture.covariances_[::-1, 0, 0]), mixture.weights_[1]]
    ours = [found.clean.mean, found.noisy.mean, found.clean.shape, found.noisy.shape, found.clean_weight]
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    np.testing.assert_allclose(
        found.posterior(values[:, None], GAUSS), mixture.predict_proba(values[:, None])[:, 1], atol=1e-9
    )
    twice = fit_as_sklearn(np.repeat(values, 2), np.repeat(upper, 2), Ending(steps, 0.0), 1e-3)
    weighted = fit_as_sklearn(values, upper, Ending(steps, 0.0), 1e-3, np.full(len(values), 2.0))
    assert weighted.noisy.mean == pytest.approx(twice.noisy.mean, rel=1e-9)


@pytest.mark.parametrize("family", [BETA, GAUSS])
def test_weights_stand_for_rows(family: object) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(300) < 0.3, rng.beta(3, 4, 300), rng.beta(20, 1, 300))
    values = np.sort(np.round(values, 2).clip(0.01, 0.99))
    distinct, counts = np.unique(values, return_counts=True)

    def fit(values: Array, weights: Array | None) -> Array:
        scaled = values if family is BETA else (values - 0.8) / 0.2
        features = log_features(values, None) if family is BETA else scaled[:, None]
        found = fit_two_components(scaled, features, BETA if family is BETA else GAUSS, weights)
        return np.array([*found.clean, *found.noisy, found.clean_weight, found.log_likelihood])

    # The start may cut within equal rows, and the end is a change of the likelihood below 1e-7.
    np.testing.assert_allclose(fit(distinct, counts.astype(float)), fit(values, None), rtol=2e-2)
    np.testing.assert_allclose(fit(values, np.full(len(values), 3.0)), fit(values, None), rtol=1e-6)
