"""Standardising follows its affine laws, and the consensus follows Algorithm 1."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.schema import Array
from rayclean.scores.influence_votes import (
    Standardize,
    fit_votes,
    gamma_count,
    moments,
    noisy_probable,
    osd_score,
    osm_score,
    standardized,
    votes,
)

matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.one_of(st.integers(-1000, 1000).map(lambda i: i / 8), st.just(np.nan)),
)


def two_heaps(num_rows: int = 600, num_classes: int = 3, seed: int = 0) -> tuple[Array, Array, Array]:
    """OSM, deviations and which rows are noisy: the noisy have large deviations and a large OSM."""
    rng = np.random.default_rng(seed)
    noisy = rng.random(num_rows) < 0.4
    osm = rng.normal(size=num_rows) + noisy
    sigma = rng.normal(1.0, 0.2, (num_rows, num_classes)) + 2 * noisy[:, None]
    return osm, np.abs(sigma) * 10.0 ** np.arange(-3, num_classes - 3), noisy


@given(matrices, st.integers(0, 30), st.integers(0, 30))
def test_moments_of_blocks_add_up(values: Array, first: int, second: int) -> None:
    cuts = sorted((min(first, len(values)), min(second, len(values))))
    blocks = [moments(block) for block in np.split(values, cuts)]
    merged = blocks[0].merged(blocks[1]).merged(blocks[2])
    for k, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        assert merged.num[k] == len(known)
        if len(known):
            np.testing.assert_allclose(merged.mean[k], known.mean(), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(merged.squares[k], len(known) * known.var(), rtol=1e-9, atol=1e-9)


@given(matrices, st.floats(0.001, 1000), st.floats(-1000, 1000), st.sampled_from([-1, 1]))
def test_standardizing_undoes_an_affine_map(values: Array, scale: float, shift: float, sign: int) -> None:
    kinds: tuple[Standardize, ...] = ("samples", "classes")
    for kind in kinds:
        plain = standardized(values, kind)
        mapped = standardized(sign * scale * values + shift, kind)
        np.testing.assert_array_equal(np.isnan(plain), np.isnan(values))
        np.testing.assert_allclose(mapped, sign * plain, rtol=0, atol=1e-5)


@given(matrices)
def test_standardized_columns_have_mean_0_and_deviation_1(values: Array) -> None:
    for found in (standardized(values), standardized(values, "classes").T):
        for column in found.T:
            known = column[~np.isnan(column)]
            assert np.abs(known.sum()) < 1e-6 * max(1, len(known))
            if len(known):
                assert known.std() == pytest.approx(1, abs=1e-9) or not known.any()


def test_a_fit_on_all_rows_standardizes_blocks_of_them() -> None:
    values = np.random.default_rng(0).normal(5, 3, (50, 4))
    fit = moments(values[:20]).merged(moments(values[20:]))
    blocks = [standardized(values[:7], fit=fit), standardized(values[7:], fit=fit)]
    np.testing.assert_allclose(np.concatenate(blocks), standardized(values), rtol=1e-12, atol=1e-12)
    norms = values[:, 0]
    fit = moments(norms[:20]).merged(moments(norms[20:]))
    np.testing.assert_allclose(standardized(norms, fit=fit), (norms - norms.mean()) / norms.std(), rtol=1e-12)


def test_values_without_spread_are_0() -> None:
    assert standardized(np.full(3, 0.1)).tolist() == [0.0] * 3
    assert standardized(np.array([[0.1, 7.0], [0.1, 9.0]])).tolist() == [[0.0, -1.0], [0.0, 1.0]]
    assert standardized(np.zeros(0)).shape == (0,)
    np.testing.assert_array_equal(standardized(np.array([[np.nan], [1.0]])), [[np.nan], [0.0]])


def test_over_two_classes_the_paper_s_reading_leaves_only_signs() -> None:
    sigma = np.random.default_rng(0).exponential(size=(20, 2))
    np.testing.assert_allclose(np.abs(standardized(sigma, "classes")), 1, rtol=1e-9)
    np.testing.assert_allclose(osd_score(standardized(sigma, "classes")), 0, atol=1e-12)


def test_over_classes_needs_classes_and_no_fit() -> None:
    with pytest.raises(ValueError, match="over classes"):
        standardized(np.ones(3), "classes")
    with pytest.raises(ValueError, match="over classes"):
        standardized(np.ones((3, 2)), "classes", moments(np.ones((3, 2))))


def test_the_scores_turn_the_direction_round() -> None:
    assert osm_score(np.array([2.0, 0.0, -1.0])).tolist() == [-2.0, 0.0, 1.0]
    osd = np.array([[1.0, 3.0, np.nan], [0.0, -2.0, np.nan], [np.nan] * 3])
    np.testing.assert_array_equal(osd_score(osd), [-2.0, 1.0, np.nan])


def test_the_threshold_is_the_smaller_mean_of_the_rows_above_the_mean_osm() -> None:
    osm, sigma, noisy = two_heaps()
    thresholds = fit_votes(osm, sigma)
    for k, found in enumerate(thresholds):
        clean = sigma[(osm >= 0) & ~noisy, k]
        assert found == pytest.approx(clean.mean(), abs=0.1 * clean.std())
    changed = sigma + 100 * (osm < 0)[:, None]
    np.testing.assert_array_equal(fit_votes(osm, changed), thresholds)


@pytest.mark.parametrize("seed", range(3))
def test_votes_on_standardized_deviations_are_those_on_raw_ones(seed: int) -> None:
    """Whatever the unit: scikit-learn's floor under the variances would change them at deviations of 1e-3."""
    osm, sigma, _ = two_heaps(seed=seed)
    raw = votes(sigma, fit_votes(osm, sigma))
    osd = standardized(sigma)
    np.testing.assert_array_equal(votes(osd, fit_votes(osm, osd)), raw)
    np.testing.assert_array_equal(votes(1e-9 * sigma, fit_votes(osm, 1e-9 * sigma)), raw)
    assert raw.dtype == np.int16
    assert 0 < (raw == 3).sum() < len(raw)


def test_votes_do_not_depend_on_the_order_of_rows_or_on_chance() -> None:
    osm, sigma, _ = two_heaps()
    order = np.random.default_rng(1).permutation(len(osm))
    thresholds = fit_votes(osm, sigma)
    np.random.seed(5)
    np.testing.assert_array_equal(fit_votes(osm, sigma), thresholds)
    np.testing.assert_allclose(fit_votes(osm[order], sigma[order]), thresholds, rtol=1e-6)


def test_classes_without_validation_rows_get_no_votes() -> None:
    osm, sigma, _ = two_heaps()
    with_gap = np.insert(sigma, 1, np.nan, axis=1)
    thresholds = fit_votes(osm, with_gap)
    assert np.isnan(thresholds).tolist() == [False, True, False, False]
    np.testing.assert_array_equal(votes(with_gap, thresholds), votes(sigma, fit_votes(osm, sigma)))


def test_a_deviation_at_the_threshold_is_a_vote() -> None:
    osd = np.array([[1.0, 2.0, 3.0], [0.9, 2.0, np.nan]])
    assert votes(osd, np.array([1.0, 2.5, 3.0])).tolist() == [2, 0]


def test_few_rows_and_equal_values_have_their_own_threshold() -> None:
    assert fit_votes(np.array([1.0, -1.0]), np.array([[3.0], [5.0]])).tolist() == [3.0]
    assert fit_votes(np.array([1.0, 1.0]), np.array([[3.0], [3.0]])).tolist() == [3.0]
    assert np.isnan(fit_votes(np.array([-1.0]), np.array([[3.0, 4.0]]))).tolist() == [True, True]
    assert fit_votes(np.array([1.0, 1.0]), np.array([[3.0], [5.0]]))[0] == pytest.approx(3, abs=0.1)


@settings(max_examples=200)
@given(st.integers(0, 1000), st.integers(1, 200))
def test_a_share_is_rounded_up_from_its_decimal(thousandths: int, num_classes: int) -> None:
    count = gamma_count(thousandths / 1000, num_classes)
    exact = Fraction(thousandths, 1000) * num_classes
    assert exact <= count < exact + 1
    assert gamma_count(thousandths, num_classes) == thousandths


def test_gamma_of_the_paper_and_gammas_out_of_range() -> None:
    assert [gamma_count(g, 10) for g in (0.5, 0.8, 5, 8, 0, 0.0, 1.0, 1)] == [5, 8, 5, 8, 0, 0, 10, 1]
    assert gamma_count(0.55, 100) == 55
    for gamma in (-1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="gamma"):
            gamma_count(gamma, 10)


def test_noisy_probable_needs_osm_and_votes() -> None:
    osm, num_votes = np.array([0.0, 1.0, -0.1, np.nan]), np.array([5, 4, 9, 9], np.int16)
    assert noisy_probable(osm, num_votes, 5).tolist() == [True, False, False, False]
    assert noisy_probable(osm, num_votes, 0).tolist() == [True, True, False, False]


def test_noise_planted_in_both_measures_is_found() -> None:
    osm, sigma, noisy = two_heaps()
    removed = noisy_probable(osm, votes(sigma, fit_votes(osm, sigma)), gamma_count(0.8, 3))
    assert noisy[removed].mean() > 0.85
    assert removed[noisy & (osm >= 0)].all()
