"""Splits: the authors' Gaussians, INN's beta densities, and rows on both sides whatever the scores are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.mixture import GaussianMixture

from rayclean.learn.divide import (
    BETA_MARGIN,
    NUM_BINS,
    Clean,
    _histogram,
    _logit_bins,
    clean_posterior,
    cleanness,
    split_rows,
)
from rayclean.merge.monotone import log_features
from rayclean.schema import Array
from rayclean.scores.em import BETA, fit_two_components


def losses(seed: int, num: int = 4000, noise: float = 0.4, apart: float = 3.0) -> tuple[Array, Array]:
    """Losses as after a warm-up, and which rows are noisy."""
    rng = np.random.default_rng(seed)
    noisy = rng.random(num) < noise
    return np.where(noisy, rng.normal(apart, 0.8, num), rng.exponential(0.5, num)).clip(0).astype(np.float32), noisy


def beta_scores(seed: int, num: int = 4000) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    noisy = rng.random(num) < 0.3
    return np.where(noisy, rng.beta(3, 4, num), rng.beta(20, 1, num)), noisy


def sklearn_posterior(loss: Array, **start: Array) -> Array:
    """The authors' lines; without a start sklearn's k-means begins at random rows, seeded."""
    scaled = ((loss - loss.min()) / (loss.max() - loss.min())).reshape(-1, 1).astype(np.float64)
    gmm = GaussianMixture(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0, **start).fit(scaled)
    probabilities: Array = gmm.predict_proba(scaled)[:, gmm.means_.argmin()]
    return probabilities


def best_clusters(loss: Array) -> dict[str, Array]:
    """The start of sklearn's mixture from the best two clusters: of all cuts that of the least squared distances."""
    scaled = np.sort((loss - loss.min()) / (loss.max() - loss.min())).astype(np.float64)
    best = min(range(1, len(loss)), key=lambda cut: scaled[:cut].var() * cut + scaled[cut:].var() * (len(loss) - cut))
    parts = [scaled[:best], scaled[best:]]
    return {
        "weights_init": np.array([len(part) / len(scaled) for part in parts]),
        "means_init": np.array([[part.mean()] for part in parts]),
        "precisions_init": np.array([[[1 / (part.var() + 5e-4)]] for part in parts]),
    }


CASES = [(0.2, 3.0), (0.5, 3.0), (0.8, 4.0), (0.4, 1.5)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("noise", "apart"), CASES)
def test_two_gaussians_are_those_of_sklearn_on_the_rows_themselves(seed: int, noise: float, apart: float) -> None:
    loss, _ = losses(seed, noise=noise, apart=apart)
    found = clean_posterior(cleanness(loss, "gauss", True), "gauss").posterior
    np.testing.assert_allclose(found, sklearn_posterior(loss, **best_clusters(loss)), atol=1e-3)


@pytest.mark.parametrize(("noise", "apart"), CASES)
def test_the_authors_start_by_chance_gives_nearly_the_same_split(noise: float, apart: float) -> None:
    loss, _ = losses(5, noise=noise, apart=apart)
    found = clean_posterior(cleanness(loss, "gauss", True), "gauss").posterior
    assert ((found > 0.5) == (sklearn_posterior(loss) > 0.5)).mean() > 0.98


def test_scores_mirror_losses() -> None:
    loss, _ = losses(0)
    of_loss = clean_posterior(cleanness(loss, "gauss", True), "gauss")
    of_score = clean_posterior(cleanness(-loss, "gauss", False), "gauss")
    np.testing.assert_allclose(of_loss.posterior, of_score.posterior, atol=1e-5)
    assert of_loss.clean_mean > of_loss.noisy_mean


def test_two_beta_densities_are_those_of_the_rows_themselves() -> None:
    scores, noisy = beta_scores(0)
    inside = np.sort(scores.clip(BETA_MARGIN, 1 - BETA_MARGIN))
    fit = fit_two_components(inside, log_features(inside, None), BETA)
    found = clean_posterior(cleanness(scores, "beta", False), "beta")
    assert found.clean_mean == pytest.approx(fit.clean.mean, abs=1e-3)
    assert found.noisy_mean == pytest.approx(fit.noisy.mean, abs=1e-3)
    expected = np.interp(scores.clip(BETA_MARGIN, 1 - BETA_MARGIN), inside, fit.responsibilities)
    between = (scores > fit.noisy.mean) & (scores < fit.clean.mean)
    np.testing.assert_allclose(found.posterior[between], expected[between], atol=0.02)
    assert ((found.posterior > 0.5) != noisy).mean() > 0.95


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.floats(0.2, 30), st.floats(0.2, 30), st.floats(0.05, 0.95))
def test_p_clean_of_beta_densities_grows_with_the_score(seed: int, a: float, b: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(500) < noise, rng.beta(a, b, 500), rng.beta(b, a / 2, 500))
    posterior = clean_posterior(cleanness(scores, "beta", False), "beta").posterior
    assert (np.diff(posterior[np.argsort(scores)]) >= 0).all()
    assert posterior.min() >= 0
    assert posterior.max() <= 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_histogram_keeps_the_rows_and_their_mean(values: list[float]) -> None:
    array = np.array(values, np.float32)
    for bins in (lambda v: v * NUM_BINS, _logit_bins):
        histogram = _histogram(array, bins)
        assert histogram.counts.sum() == len(array)
        assert (np.diff(histogram.values) > 0).all()
        mean = float(np.average(histogram.values, weights=histogram.counts))
        assert mean == pytest.approx(float(array.mean(dtype=np.float64)), abs=1e-9)


def test_bins_are_fine_where_scores_saturate() -> None:
    scores = np.array([1 - 2e-4, 1 - 4e-4], np.float32)
    even, fine = (_histogram(scores, bins) for bins in (lambda v: v * NUM_BINS, _logit_bins))
    assert (len(even.values), len(fine.values)) == (2, 2)
    low = _logit_bins(expit(np.array([-9.0, -8.99])))
    assert low[1] - low[0] > 1


def test_losses_become_cleanness() -> None:
    loss = np.array([0.0, 1.0, 4.0], np.float32)
    np.testing.assert_allclose(cleanness(loss, "gauss", True), [1, 0.75, 0])
    np.testing.assert_allclose(cleanness(loss, "gauss", False), [0, 0.25, 1])
    np.testing.assert_allclose(cleanness(loss, "beta", True), np.exp(-loss))
    np.testing.assert_array_equal(cleanness(np.array([-1e-7, 0.5, 1 + 1e-7]), "none", False), [0, 0.5, 1])
    assert (cleanness(np.full(3, 2.0), "gauss", True) == 1).all()


@pytest.mark.parametrize("mixture", ["gauss", "beta"])
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_rows_that_are_all_alike_keep_their_labels(mixture: str, value: float) -> None:
    values = np.full(7, value, np.float32)
    split = split_rows(values, clean_posterior(values, mixture), 0.5, 2)
    assert split.is_labelled.all()
    assert (split.clean == 1).all()
    assert split.facts["labelled_share"] == 1
    assert split.facts["by_order"] == 0
    assert split.facts["clean_mean"] == pytest.approx(value)


def clean(*posterior: float) -> tuple[Array, Clean]:
    array = np.array(posterior, np.float32)
    return array, Clean(array, 0.9, 0.1)


def test_a_split_keeps_labels_above_the_threshold() -> None:
    split = split_rows(*clean(0.5, 0.51, 0.9, 0.1), 0.5, 1)
    np.testing.assert_array_equal(split.is_labelled, [False, True, True, False])
    np.testing.assert_array_equal(split.clean, np.array([0.5, 0.51, 0.9, 0.1], np.float32))
    wanted = {"labelled_share": 0.5, "clean_posterior": 0.5025, "clean_mean": 0.9, "noisy_mean": 0.1, "by_order": 0}
    assert split.facts == pytest.approx(wanted)


def test_a_labelled_part_without_rows_is_filled_up_by_order() -> None:
    split = split_rows(*clean(0.1, 0.3, 0.2, 0.05, 0.3), 0.5, 2)
    np.testing.assert_array_equal(split.is_labelled, [False, True, False, False, True])
    # The labels of those that are taken in count at least as much as the threshold.
    np.testing.assert_array_equal(split.clean, np.array([0.1, 0.5, 0.2, 0.05, 0.5], np.float32))
    assert split.facts["by_order"] == 1
    assert split.facts["clean_posterior"] == pytest.approx(0.19)


def test_an_unlabelled_part_of_few_rows_is_filled_up_by_order() -> None:
    split = split_rows(*clean(0.9, 0.6, 0.8, 0.2, 0.7), 0.5, 2)
    np.testing.assert_array_equal(split.is_labelled, [True, False, True, False, True])
    assert split.facts["by_order"] == 1


def test_where_every_row_is_clean_there_is_no_unlabelled_part() -> None:
    split = split_rows(*clean(0.9, 0.8, 0.7), 0.5, 2)
    assert split.is_labelled.all()
    assert split.facts["by_order"] == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30), st.integers(1, 40), st.floats(0, 0.75, width=32))
def test_no_part_is_too_small_for_a_batch(posterior: list[float], least: int, threshold: float) -> None:
    values, found = clean(*posterior)
    split = split_rows(values, found, threshold, least)
    enough = min(least, max(len(values) // 2, 1))
    assert split.is_labelled.sum() >= enough
    assert (~split.is_labelled).sum() == 0 or (~split.is_labelled).sum() >= enough
    if (~split.is_labelled).any():
        assert values[split.is_labelled].min() >= values[~split.is_labelled].max()
    if not split.facts["by_order"]:
        np.testing.assert_array_equal(split.is_labelled, values > np.float32(threshold))
