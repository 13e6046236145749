"""The simulated losses equal the plain formula on the same draws; positions and thresholds are each other's inverse."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import quad
from scipy.stats import kstwo, norm, percentileofscore

from rayclean.schema import Array
from rayclean.scores.simulated_loss import (
    KINDS,
    MAX_DISTANCE,
    MIN_PLANTED,
    TILE,
    agreement,
    follows,
    odd_drop,
    odd_score,
    quantile_of,
    rectified_gaussian,
    simulated_losses,
    threshold,
)

K, D = 7, 12
RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(K, D)).astype(np.float32), RNG.normal(size=K).astype(np.float32)
ROWS = np.maximum(RNG.normal(size=(50, D)), 0).astype(np.float16)
MEAN, STD = RNG.uniform(-0.5, 2, D), RNG.uniform(0.1, 2, D)
MEAN[:3], STD[:3] = [0.7, 0.0, 30.0], [0.0, 0.0, 2.0]


def simulate(kind: str, num: int, seed: int = 0, weight: Array = WEIGHT, bias: Array = BIAS) -> Array:
    """Losses of any kind."""
    return simulated_losses(weight, bias, kind, num, seed, mean=MEAN, std=STD, features=ROWS)


def drawn(kind: str, num: int, seed: int) -> tuple[Array, Array]:
    """The features and labels of the draws, all in one go."""
    streams = np.random.SeedSequence(seed).spawn(2)
    features, labels = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    y = labels.integers(0, K, num)
    if kind == "empirical":
        return ROWS[features.integers(0, len(ROWS), num)].astype(np.float64), y
    normal = features.standard_normal((num, D))
    if kind == "gauss":
        return np.maximum(normal, 0), y
    law = rectified_gaussian(MEAN, STD)
    plain = law.centre + law.scale * normal
    return np.where(law.rectified, np.maximum(plain, 0), plain), y


# The losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num", [1, 3 * TILE - 5, 3 * TILE, 1500])
def test_losses_equal_the_plain_formula_on_the_same_draws(kind: str, num: int) -> None:
    features, labels = drawn(kind, num, seed=3)
    logits = torch.nn.functional.linear(
        torch.from_numpy(features), torch.from_numpy(WEIGHT).double(), torch.from_numpy(BIAS).double()
    )
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    found = simulate(kind, num, seed=3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.sort(expected.numpy()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_has_the_same_bytes_however_many_follow(kind: str) -> None:
    """Wherever the draws are cut: in the middle of a tile, at its end, after one draw."""
    many = set(simulate(kind, 5 * TILE).tolist())
    for num in (1, 2, TILE - 1, TILE, TILE + 1, 3 * TILE + 17):
        few = simulate(kind, num).tolist()
        assert len(few) == num
        assert few == sorted(few)
        assert set(few) <= many


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_losses(kind: str) -> None:
    first, again, other = (simulate(kind, 300, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_zeros_loses_ln_k_and_one_class_nothing(kind: str) -> None:
    losses = simulate(kind, 300, weight=np.zeros((K, D)), bias=np.full(K, 3.0))
    np.testing.assert_allclose(losses, np.log(K), rtol=1e-15)
    assert simulate(kind, 300, weight=WEIGHT[:1], bias=BIAS[:1]).tolist() == [0.0] * 300


def test_a_saturated_head_keeps_small_and_large_losses() -> None:
    """Two logits apart by 1,000: near 0 or near 1,000, and what is near 0 is not rounded to it."""
    losses = simulated_losses(np.zeros((2, 1)), np.array([40.0, 0.0]), "gauss", 1000, 0)
    low = losses < 20
    np.testing.assert_allclose(losses[low], np.exp(-40.0), rtol=1e-9)
    np.testing.assert_allclose(losses[~low], 40.0, rtol=1e-9)
    assert abs(low.mean() - 0.5) < 4 * np.sqrt(0.25 / 1000)
    assert simulated_losses(np.zeros((2, 1)), np.array([1e300, -1e300]), "gauss", 10, 0)[-1] == 2e300


def test_empirical_losses_are_those_of_all_rows_and_labels_alike() -> None:
    logits = torch.from_numpy(ROWS.astype(np.float64) @ WEIGHT.astype(np.float64).T + BIAS)
    every = (torch.logsumexp(logits, dim=1, keepdim=True) - logits).numpy().ravel()
    losses = simulate("empirical", 20_000)
    distance = np.abs(losses[:, None] - np.sort(every)[None, :]).min(axis=1)
    assert distance.max() < 1e-12
    assert abs(losses.mean() - every.mean()) < 4 * every.std() / np.sqrt(len(losses))
    drawn_shares = np.histogram(losses, np.append(np.unique(every) - 1e-9, np.inf))[0] / len(losses)
    assert np.abs(drawn_shares * every.size - 1).max() < 5 * np.sqrt(every.size / len(losses))


def test_memory_stays_far_below_the_draws() -> None:
    """20,000 draws of 1,024 features would be 164 MB."""
    weight = np.zeros((3, 1024))
    tracemalloc.start()
    simulated_losses(weight, np.zeros(3), "gauss", 20_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6


# Pooled features ----------------------------------------------------------------------------------------------------


def moments(centre: float, scale: float) -> tuple[float, float]:
    """Mean and std of max(centre + scale g, 0), by integration."""
    start = max(-centre / scale, -12.0)
    points = [start, max(start, 0.0) + 3, 12.0]
    first, second = (
        sum(
            quad(lambda g, n=n: (centre + scale * g) ** n * norm.pdf(g), a, b, epsabs=0, epsrel=1e-12)[0]
            for a, b in itertools.pairwise(points)
        )
        for n in (1, 2)
    )
    return first, np.sqrt(second - first**2)


@given(st.floats(-4, 0.9), st.floats(-3, 3))
def test_a_rectified_gaussian_has_the_measured_moments(log_ratio: float, log_std: float) -> None:
    """From a feature that is hardly ever active, mean = 1e-4 std, to one that always is."""
    std = 10.0**log_std
    mean = std * 10.0**log_ratio
    law = rectified_gaussian(np.array([mean]), np.array([std]))
    assert law.rectified.tolist() == [True]
    assert moments(law.centre[0], law.scale[0]) == pytest.approx((mean, std), rel=1e-6)


def test_what_no_rectified_gaussian_has_stays_a_gaussian_of_the_same_moments() -> None:
    mean = np.array([-1.0, 0.0, 0.0, 2.0, -2.0, 1e-9, 100.0, 0.5])
    std = np.array([0.5, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    law = rectified_gaussian(mean, std)
    assert law.rectified.tolist() == [False] * 7 + [True]
    np.testing.assert_array_equal(law.centre[:7], mean[:7])
    np.testing.assert_array_equal(law.scale[:7], std[:7])


def test_half_normal_features_are_those_of_gauss() -> None:
    """max(g, 0) has mean 1 / sqrt(2 pi) and second moment 1/2; so both kinds give the same losses."""
    mean = np.full(D, 1 / np.sqrt(2 * np.pi))
    std = np.sqrt(0.5 - mean**2)
    law = rectified_gaussian(mean, std)
    np.testing.assert_allclose(law.centre, 0, atol=1e-12)
    np.testing.assert_allclose(law.scale, 1, atol=1e-12)
    pooled = simulated_losses(WEIGHT, BIAS, "gauss_pooled", 500, 1, mean=mean, std=std)
    np.testing.assert_allclose(pooled, simulated_losses(WEIGHT, BIAS, "gauss", 500, 1), rtol=1e-9)


def test_the_pooled_draws_have_the_measured_moments() -> None:
    """Within four standard errors, features of all sorts."""
    num = 40_000
    features, _ = drawn("gauss_pooled", num, seed=0)
    centred = features - features.mean(axis=0)
    assert (np.abs(features.mean(axis=0) - MEAN) <= 4 * STD / np.sqrt(num) + 1e-12).all()
    error_of_variance = np.sqrt(np.maximum((centred**4).mean(axis=0) - STD**4, 0) / num)
    assert (np.abs(centred.var(axis=0) - STD**2) <= 4 * error_of_variance + 1e-12).all()


# Threshold, position, score -----------------------------------------------------------------------------------------

finite = st.floats(-100, 100, allow_subnormal=False)
simulated_arrays = st.lists(finite, min_size=1, max_size=40).map(lambda values: np.array(sorted(values)))


@given(simulated_arrays, st.lists(finite, max_size=20))
def test_positions_are_mid_ranks_and_grow_with_the_loss(simulated: Array, losses: list[float]) -> None:
    at = np.array(sorted(losses + simulated[:3].tolist()))
    found = quantile_of(at, simulated)
    assert found.dtype == np.float32
    plain = [percentileofscore(simulated, loss, kind="mean") / 100 for loss in at]
    np.testing.assert_allclose(found, plain, atol=1e-6)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


@given(simulated_arrays, st.floats(0, 100))
def test_the_position_of_a_threshold_is_its_percentile(simulated: Array, percentile: float) -> None:
    at = threshold(simulated, percentile)
    slack = 1 / len(simulated) + 1e-6
    assert np.mean(simulated < at) <= percentile / 100 + slack
    assert np.mean(simulated <= at) >= percentile / 100 - slack
    if len(np.unique(simulated)) == len(simulated):
        # Neighbours a rounding error apart may fall together.
        gap = np.diff(simulated).min(initial=np.inf)
        if gap > 1e-9:
            assert abs(quantile_of(np.array([at]), simulated)[0] - percentile / 100) <= slack


@given(simulated_arrays, st.floats(0, 100), st.floats(0, 100))
def test_a_higher_percentile_drops_no_more(simulated: Array, first: float, second: float) -> None:
    low, high = sorted([first, second])
    fewer, more = (odd_drop(simulated, threshold(simulated, p)) for p in (high, low))
    assert not (fewer & ~more).any()


def test_dropped_are_the_losses_above_the_threshold() -> None:
    simulated = np.arange(11.0)
    assert threshold(simulated, 10) == 1.0
    assert threshold(simulated, 15) == 1.5
    losses = np.array([0.5, 1.0, np.nextafter(1.0, 2.0), 9.0, np.nan])
    assert odd_drop(losses, 1.0).tolist() == [False, False, True, True, False]
    found = quantile_of(np.array([-1.0, 0.0, 5.5, 20.0]), simulated)
    np.testing.assert_allclose(found, [0, 0.5 / 11, 6 / 11, 1], rtol=1e-6)
    assert np.isnan(quantile_of(losses, simulated)[-1])


def test_random_labels_are_dropped_but_for_the_percentile() -> None:
    """The law that gives ODD its name: of labels that are random, p percent stay."""
    simulated = simulate("gauss", 50_000, seed=0)
    random = simulate("gauss", 20_000, seed=1)
    stay = 1 - odd_drop(random, threshold(simulated, 10)).mean()
    assert abs(stay - 0.1) < 4 * np.sqrt(0.09 / 20_000 + 0.09 / 50_000)
    positions = quantile_of(random, simulated)
    assert abs(positions.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 20_000 + 1 / 12 / 50_000)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(0, 6)), elements=st.floats(0, 50, width=32)))
def test_odd_is_minus_the_mean_loss(losses: Array) -> None:
    found = odd_score(losses)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [-np.mean(column, dtype=np.float64) for column in losses.T], rtol=1e-12)
    assert not np.signbit(found[found == 0]).any()


def test_higher_odd_is_cleaner() -> None:
    learned, never = odd_score(np.array([[0.1, 5.0], [0.0, 4.0]]))
    assert learned > never


# Does the simulation follow real losses of random labels? -----------------------------------------------------------


def test_the_distance_is_that_of_the_distribution_functions() -> None:
    planted, simulated = np.array([1.0, 2.0, 2.0, 7.0]), np.array([0.0, 2.0, 3.0, 4.0, 5.0])
    grid = np.linspace(-1, 8, 901)
    gaps = [abs(np.mean(planted <= x + 1e-9) - np.mean(simulated <= x + 1e-9)) for x in grid]
    assert agreement(planted, simulated) == pytest.approx(max(gaps))
    assert agreement(simulated, simulated) == 0.0
    assert agreement(planted + 100, simulated) == 1.0


def test_the_right_kind_follows_and_a_wrong_scale_does_not() -> None:
    """Losses of random labels on pooled features, a third of the size that `gauss` supposes."""
    mean, std = np.full(D, 0.13), np.full(D, 0.1)
    planted = simulated_losses(WEIGHT * 3, BIAS, "gauss_pooled", 200, 9, mean=mean, std=std)
    right = simulated_losses(WEIGHT * 3, BIAS, "gauss_pooled", 5000, 0, mean=mean, std=std)
    wrong = simulated_losses(WEIGHT * 3, BIAS, "gauss", 5000, 0)
    assert follows(planted, right) is True
    assert follows(planted, wrong) is False
    assert follows(planted[: MIN_PLANTED - 1], wrong) is None
    assert follows(planted[-MIN_PLANTED:], right) is False  # its largest only


def test_the_warning_is_rarely_wrong_at_the_fewest_rows() -> None:
    assert kstwo.sf(MAX_DISTANCE, MIN_PLANTED) < 0.004


# What is refused ----------------------------------------------------------------------------------------------------


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'normal'; valid: gauss, gauss_pooled, empirical"):
        simulate("normal", 10)
    with pytest.raises(ValueError, match="num must be at least 1, found 0"):
        simulate("gauss", 0)
    with pytest.raises(ValueError, match=r"found \(7, 12\) and \(6,\)"):
        simulate("gauss", 10, bias=BIAS[:-1])
    with pytest.raises(ValueError, match=r"needs mean and std \(12,\), found \(12,\), none"):
        simulated_losses(WEIGHT, BIAS, "gauss_pooled", 10, 0, mean=MEAN)
    with pytest.raises(ValueError, match=r"features \(M, 12\), M at least 1, found \(0, 12\)"):
        simulated_losses(WEIGHT, BIAS, "empirical", 10, 0, features=ROWS[:0])
    with pytest.raises(ValueError, match="logits that are not finite"):
        simulate("gauss", 10, bias=np.full(K, np.inf))
    with pytest.raises(ValueError, match="finite means and stds >= 0"):
        rectified_gaussian(np.zeros(2), np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="percentile 101 of 3 losses"):
        threshold(np.zeros(3), 101)
    with pytest.raises(ValueError, match="percentile 10 of 0 losses"):
        threshold(np.zeros(0), 10)
    with pytest.raises(ValueError, match=r"at least one epoch expected, found \(0, 4\)"):
        odd_score(np.zeros((0, 4)))
    for planted in (np.zeros(0), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="losses without NaN expected"):
            agreement(planted, np.zeros(3))
