from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rayclean.evaluate.metrics import auroc
from rayclean.merge.mixture import Kind, ScoreMixture, fit_mixture

Float64 = NDArray[np.float64]
NUM_ROWS = 4000


def beta_rows(
    clean: tuple[float, float], noisy: tuple[float, float], noise_rate: float = 0.3, seed: int = 0
) -> tuple[Float64, NDArray[np.bool_]]:
    """Draw NUM_ROWS scores, and which are clean."""
    rng = np.random.default_rng(seed)
    is_clean = rng.random(NUM_ROWS) >= noise_rate
    return np.where(is_clean, rng.beta(*clean, NUM_ROWS), rng.beta(*noisy, NUM_ROWS)), is_clean


def gauss_rows(gap: float, noisy_std: float = 1.0, seed: int = 0) -> tuple[Float64, NDArray[np.bool_]]:
    """Draw NUM_ROWS scores around `gap` (clean) or 0 (30%), and which are clean."""
    rng = np.random.default_rng(seed)
    is_clean = rng.random(NUM_ROWS) >= 0.3
    normal = rng.normal(size=NUM_ROWS)
    return np.where(is_clean, gap + normal, noisy_std * normal), is_clean


def memorised_rows() -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """Scores, 1 - s and which are clean, where most rows are saturated: 1 - s from 1e-12 up."""
    rng = np.random.default_rng(0)
    is_clean = rng.random(NUM_ROWS) >= 0.3
    clean_rest, noisy_rest = 10 ** rng.uniform(-12, -3, NUM_ROWS), 10 ** rng.uniform(-7, -0.1, NUM_ROWS)
    rest = np.where(is_clean, clean_rest, noisy_rest)
    return 1.0 - rest, rest, is_clean


def assert_same_order(mixture: ScoreMixture, scores: Float64, is_clean: NDArray[np.bool_]) -> None:
    published = mixture.probability(scores)
    assert published.dtype == np.float32
    assert abs(auroc(published, is_clean) - auroc(scores, is_clean)) < 1e-4
    assert (np.diff(published[np.argsort(scores)]) >= 0.0).all()


def test_beta_fit_recovers_the_components() -> None:
    scores, _ = beta_rows((8, 2), (2, 6))
    mixture = fit_mixture(scores, "beta")
    assert mixture.reliable
    assert mixture.reason == ""
    assert mixture.noise_rate == pytest.approx(0.3, abs=0.03)
    assert mixture.clean_mean == pytest.approx(0.8, abs=0.02)
    assert mixture.noisy_mean == pytest.approx(0.25, abs=0.02)
    assert mixture.clean_shape == pytest.approx(10, rel=0.2)
    assert mixture.noisy_shape == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize("noise_rate", [0.03, 0.8])
def test_beta_fit_finds_rare_and_common_noise(noise_rate: float) -> None:
    mixture = fit_mixture(beta_rows((8, 2), (2, 6), noise_rate)[0], "beta")
    assert mixture.reliable
    assert mixture.noise_rate == pytest.approx(noise_rate, abs=0.02)


def test_beta_probability_is_calibrated_where_the_model_is_true() -> None:
    scores, is_clean = beta_rows((8, 2), (2, 6))
    published = fit_mixture(scores, "beta").probability(scores)
    for low, high in [(0.0, 0.1), (0.3, 0.7), (0.9, 1.0)]:
        inside = (published >= low) & (published < high)
        assert published[inside].mean() == pytest.approx(is_clean[inside].mean(), abs=0.1)


def test_gauss_fit_recovers_the_components_in_the_units_of_the_score() -> None:
    scores, _ = gauss_rows(4.0)
    mixture = fit_mixture(100.0 + 7.0 * scores, "gauss")
    assert mixture.reliable
    assert mixture.noise_rate == pytest.approx(0.3, abs=0.03)
    assert mixture.clean_mean == pytest.approx(128.0, abs=0.7)
    assert mixture.noisy_mean == pytest.approx(100.0, abs=0.7)
    assert mixture.clean_shape == pytest.approx(7.0, abs=0.5)


@given(st.floats(min_value=-1e3, max_value=1e3), st.floats(min_value=1e-3, max_value=1e3))
@settings(max_examples=8, deadline=None)
def test_gauss_probability_does_not_depend_on_units(shift: float, scale: float) -> None:
    scores, published = _gauss_probability()
    moved = shift + scale * scores
    np.testing.assert_allclose(fit_mixture(moved, "gauss").probability(moved), published, atol=1e-3)


@functools.cache
def _gauss_probability() -> tuple[Float64, NDArray[np.float32]]:
    scores = gauss_rows(3.0)[0][:1000]
    return scores, fit_mixture(scores, "gauss").probability(scores)


@pytest.mark.parametrize(
    ("clean", "noisy"),
    [
        ((8, 2), (2, 6)),
        ((5, 2), (2, 4)),
        pytest.param((3, 1.2), (60, 80), id="the noisy component is the narrow one"),
        pytest.param((3, 0.05), (1, 0.5), id="scores that are 1 in float64"),
        pytest.param((2000, 100), (1800, 200), id="steep"),
    ],
)
def test_label_score_keeps_the_order_of_a_beta_score(clean: tuple[float, float], noisy: tuple[float, float]) -> None:
    scores, is_clean = beta_rows(clean, noisy)
    assert_same_order(fit_mixture(scores, "beta"), scores, is_clean)


@pytest.mark.parametrize(("gap", "noisy_std"), [(3.0, 1.0), (2.0, 0.2), (30.0, 1.0)])
def test_label_score_keeps_the_order_of_a_gauss_score(gap: float, noisy_std: float) -> None:
    scores, is_clean = gauss_rows(gap, noisy_std)
    assert_same_order(fit_mixture(scores, "gauss"), scores, is_clean)


@pytest.mark.parametrize("fit_on_saturated", [True, False])
def test_saturated_scores_keep_their_order_through_one_minus(fit_on_saturated: bool) -> None:
    scores, rest, is_clean = memorised_rows()
    if fit_on_saturated:
        mixture = fit_mixture(scores, "beta", one_minus=rest)
    else:
        mixture = fit_mixture(beta_rows((8, 2), (2, 6))[0], "beta")
    published = mixture.probability(scores, rest)
    assert abs(auroc(published, is_clean) - auroc(-rest, is_clean)) < 1e-4


def test_the_ends_are_finite_and_ordered() -> None:
    scores = np.array([0.0, 1e-300, 1e-9, 0.5, 1.0 - 1e-9, 1.0])
    published = fit_mixture(beta_rows((8, 2), (2, 6))[0], "beta").probability(scores)
    assert (np.diff(published) > 0.0).all()
    assert published[0] > 0.0
    assert published[-1] < 1.0


def test_infinite_gauss_scores_are_the_ends() -> None:
    scores, _ = gauss_rows(3.0)
    scores[:2] = [-np.inf, np.inf]
    mixture = fit_mixture(scores, "gauss")
    published = mixture.probability(scores)
    assert mixture.num_rows == NUM_ROWS - 2
    assert published.argmin() == 0
    assert published.argmax() == 1
    assert np.isfinite(published).all()


@given(st.permutations(range(300)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    scores, found = _beta_fit()
    assert fit_mixture(scores[order], "beta") == found


@functools.cache
def _beta_fit() -> tuple[Float64, ScoreMixture]:
    scores = beta_rows((8, 2), (2, 6))[0][:300]
    return scores, fit_mixture(scores, "beta")


@pytest.mark.parametrize("kind", ["beta", "gauss"])
def test_undefined_rows_are_left_out_of_the_fit_and_get_the_prior(kind: Kind) -> None:
    scores, _ = beta_rows((8, 2), (2, 6))
    with_gaps = np.append(scores, [np.nan, np.nan])
    mixture = fit_mixture(with_gaps, kind)
    assert mixture == fit_mixture(scores, kind)
    published = mixture.probability(with_gaps)
    np.testing.assert_array_equal(published[-2:], np.float32(1.0 - mixture.noise_rate))
    np.testing.assert_array_equal(published[:-2], mixture.probability(scores))


@given(
    st.sampled_from(["beta", "gauss"]),
    st.lists(st.floats(min_value=0.0, max_value=1.0), min_size=1, max_size=40),
)
@settings(max_examples=50, deadline=None)
def test_any_scores_give_a_finite_ordered_result_that_json_keeps(kind: Kind, values: list[float]) -> None:
    scores = np.array(values)
    mixture = fit_mixture(scores, kind)
    published = mixture.probability(scores)
    assert np.isfinite(published).all()
    assert ((published > 0.0) & (published < 1.0)).all()
    assert (np.diff(published[np.argsort(scores)]) >= 0.0).all()
    again = ScoreMixture.from_json(json.loads(json.dumps(mixture.to_json(), allow_nan=False)))
    assert again == mixture
    assert again.probability(scores).tobytes() == published.tobytes()


@pytest.mark.parametrize("kind", ["beta", "gauss"])
@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (np.full(100, 0.7), "all scores"),
        (np.linspace(0.1, 0.9, 9), "9 scores"),
        (np.full(50, np.nan), "0 scores"),
        (np.zeros(0), "0 scores"),
    ],
)
def test_without_evidence_the_prior_is_published(kind: Kind, scores: Float64, reason: str) -> None:
    mixture = fit_mixture(scores, kind)
    assert not mixture.reliable
    assert reason in mixture.reason
    np.testing.assert_array_equal(mixture.probability(np.array([0.0, 0.5, np.nan])), np.float32(0.5))


def test_components_that_no_increasing_map_tells_apart_publish_the_prior() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(0.0, 2.0, 3000), rng.normal(0.0, 0.1, 1000)
    scores = np.concatenate([wide, -wide, narrow, -narrow])  # symmetric: the best slope is 0
    mixture = fit_mixture(scores, "gauss")
    assert not mixture.reliable
    assert mixture.reason == "no increasing map fits the components"
    assert np.unique(mixture.probability(scores)).tolist() == [np.float32(1.0 - mixture.noise_rate)]


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        (beta_rows((3, 2), (2, 3))[0], "beta"),
        (beta_rows((3, 2), (3, 2))[0], "beta"),
        (gauss_rows(1.0)[0], "gauss"),
        (gauss_rows(0.0)[0], "gauss"),
        (gauss_rows(0.3, noisy_std=0.1)[0], "gauss"),
    ],
    ids=["beta, near", "beta, only one", "gauss, near", "gauss, only one", "gauss, one inside the other"],
)
def test_components_that_overlap_are_not_reliable(scores: Float64, kind: Kind) -> None:
    mixture = fit_mixture(scores, kind)
    assert not mixture.reliable
    assert mixture.reason
    assert mixture.overlap > 0.5


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.inf])
def test_a_beta_score_outside_0_to_1_is_refused(wrong: float) -> None:
    scores = np.append(beta_rows((8, 2), (2, 6))[0], wrong)
    with pytest.raises(ValueError, match=r"1 beta scores outside \[0, 1\].*gauss"):
        fit_mixture(scores, "beta")


def test_rounding_past_1_is_taken_as_1() -> None:
    mixture = fit_mixture(beta_rows((8, 2), (2, 6))[0], "beta")
    past = mixture.probability(np.array([1.0 + 2e-7]), np.array([-2e-7]))
    np.testing.assert_array_equal(past, mixture.probability(np.array([1.0])))
