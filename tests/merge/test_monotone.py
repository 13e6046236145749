from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from rayclean.merge.monotone import (
    LOG_ODDS_BOUND,
    SLOPE_FLOOR,
    fit_log_odds,
    log_features,
    probability,
    squash,
)

log_odds = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@given(log_odds, st.floats(min_value=1e-9, max_value=1.0))
def test_squash_is_strictly_increasing(start: float, relative_step: float) -> None:
    pair = np.array([start, start + relative_step * max(abs(start), 1.0)])
    low, high = squash(pair)
    assert low < high


@given(log_odds)
def test_squash_is_odd_and_bounded_and_never_adds_certainty(value: float) -> None:
    there, back = squash(np.array([value, -value]))
    assert there == -back
    assert abs(there) <= min(abs(value), LOG_ODDS_BOUND)


def test_squash_is_the_identity_in_the_middle_and_reaches_the_bound_at_infinity() -> None:
    middle = np.linspace(-4.0, 4.0, 101)
    np.testing.assert_array_equal(squash(middle), middle)
    np.testing.assert_array_equal(squash(np.array([-np.inf, np.inf])), [-15.0, 15.0])


@pytest.mark.parametrize(("at", "gap"), [(4.0, 4e-6), (20.0, 1.2e-3), (200.0, 0.12), (2000.0, 8.0)])
def test_float32_keeps_apart_log_odds_of_the_documented_gaps(at: float, gap: float) -> None:
    published = probability(np.linspace(at, at + 19 * gap, 20))
    assert (np.diff(published) > 0.0).all()
    assert published[-1] < probability(np.array([np.inf]))[0] < 1.0


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=2, max_size=50))
def test_probability_never_decreases(values: list[float]) -> None:
    assert (np.diff(probability(np.array(sorted(values)))) >= 0.0).all()


@given(st.floats(min_value=0.0, max_value=1.0), st.floats(min_value=0.0, max_value=1.0))
def test_log_features_grow_with_the_score(first: float, second: float) -> None:
    low, high = log_features(np.array(sorted([first, second])), None)
    assert (low <= high).all()
    if first != second:
        assert (low < high).any()


def test_log_features_keep_what_one_minus_says_of_scores_that_are_one_in_float64() -> None:
    rest = np.array([0.0, 1e-300, 1e-40, 1e-20])
    features = log_features(np.ones(4), rest)
    assert (np.diff(features[:, 1]) < 0.0).all()
    np.testing.assert_allclose(features[1:, 1], -np.log(rest[1:]))
    np.testing.assert_array_equal(features[1:, 0], -rest[1:])


def test_log_features_are_precise_at_both_ends() -> None:
    features = log_features(np.array([1e-20]), None)
    np.testing.assert_allclose(features, [[np.log(1e-20), 1e-20]], rtol=1e-15)


@given(
    st.floats(min_value=-2.0, max_value=2.0),
    st.floats(min_value=0.1, max_value=3.0),
    st.floats(min_value=0.1, max_value=3.0),
)
def test_fit_finds_the_line_that_made_the_responsibilities(c: float, a: float, b: float) -> None:
    features = np.random.default_rng(0).uniform(-1.0, 1.0, size=(200, 2))
    intercept, slopes = fit_log_odds(features, expit(c + features @ [a, b]))
    np.testing.assert_allclose([intercept, *slopes], [c, a, b], atol=1e-3)


def test_fit_never_takes_a_falling_slope() -> None:
    features = np.linspace(-1.0, 1.0, 50)[:, None]
    _, slopes = fit_log_odds(features, expit(-3.0 * features[:, 0]))
    assert slopes.tolist() == [SLOPE_FLOOR]


def test_fit_to_components_wholly_apart_stays_finite() -> None:
    features = np.array([[-1.0]] * 20 + [[1.0]] * 20)
    intercept, slopes = fit_log_odds(features, (features[:, 0] > 0.0).astype(np.float64))
    np.testing.assert_allclose([intercept, slopes[0]], [0.0, np.log(1e4)], atol=0.01)
