"""Noise made on purpose: rates as the sources have them, and labels that hang on no order or block of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import chisquare, truncnorm

from rayclean.catalog.flips import CIFAR10_TARGETS, class_rates
from rayclean.catalog.imbalance import (
    KEEP_ALL,
    KEEP_NONE,
    SALT,
    class_targets,
    is_kept,
    keep_thresholds,
    relabel,
)
from rayclean.catalog.instance_noise import RATE_SALT, instance_labels, projection, truncated_normal
from rayclean.catalog.noise import FLIP_SALT, LABEL_SALT, check_noise, flip_labels
from rayclean.config.noise_kinds import NOISE_KINDS
from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.storage.draws import seeded_hash, uniform

FLIP_KINDS = [kind.name for kind in NOISE_KINDS if not kind.reads_images]
N, K, RATE, SEED = 20_000, 10, 0.3, 5
TRUTH = np.random.default_rng(0).integers(0, K, N).astype(np.int32)
IDS = seeded_hash(0, "ids", np.arange(N, dtype=np.uint64))
PIXELS = np.random.default_rng(1).integers(0, 256, (N, 3, 3, 3), dtype=np.uint8)
MATRIX = np.random.default_rng(2).dirichlet(np.ones(K), K)
MATRIX[0] = np.eye(K)[1]  # one class is called another throughout
MATRIX[3, [0, -1]] = 0.0
MATRIX[3] /= MATRIX[3].sum()


def flipped(kind: str, truth: Array = TRUTH, ids: Array = IDS, seed: int = SEED, rate: float = RATE) -> Array:
    """Labels of any kind but `instance`, at its own arguments."""
    if kind == "matrix":
        return flip_labels(kind, truth, ids, K, None, seed, matrix=MATRIX)
    return flip_labels(kind, truth, ids, K, rate, seed)


def near(share: float, expected: float, num: int) -> bool:
    """Whether a share of `num` independent draws is within 4 standard deviations; exact at 0 and 1."""
    return bool(abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / num))


# What each kind does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.8, 1.0])
@pytest.mark.parametrize(
    ("kind", "wrong_share"),
    [
        ("symmetric", lambda r: r * (K - 1) / K),
        ("symmetric_exclusive", lambda r: r),
        ("next_class", lambda r: r),
        ("per_class", lambda r: r),
        ("asymmetric_cifar10", lambda r: r * np.mean(np.isin(TRUTH, [2, 3, 4, 5, 9]))),
    ],
)
def test_the_share_of_wrong_labels_is_the_documented_one(
    kind: str, wrong_share: Callable[[float], float], rate: float
) -> None:
    labels = flipped(kind, rate=rate)
    assert labels.dtype == np.int32
    assert labels.shape == (N,)
    expected = wrong_share(rate)
    if kind == "per_class":
        expected = float(class_rates(K, rate)[TRUTH].mean())
        assert expected == pytest.approx(rate, abs=0.01)
    assert near(float(np.mean(labels != TRUTH)), expected, N)


def test_symmetric_draws_every_class_alike_and_exclusive_every_other() -> None:
    drew = uniform(SEED, FLIP_SALT, IDS) < RATE
    symmetric, exclusive = flipped("symmetric"), flipped("symmetric_exclusive")
    assert (symmetric[~drew] == TRUTH[~drew]).all()
    assert ((exclusive != TRUTH) == drew).all()
    assert near(float(np.mean(symmetric[drew] == TRUTH[drew])), 1 / K, int(drew.sum()))
    for label in range(K):
        rows = drew & (label == TRUTH)
        others = np.arange(K) != label
        assert chisquare(np.bincount(symmetric[rows], minlength=K)).pvalue > 1e-4
        assert chisquare(np.bincount(exclusive[rows], minlength=K)[others]).pvalue > 1e-4


def test_next_class_and_the_map_of_cifar10_have_one_target() -> None:
    step = flipped("next_class") - TRUTH
    assert set(np.unique(step % K)) == {0, 1}
    labels = flipped("asymmetric_cifar10")
    moved = labels != TRUTH
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    pairs = {(names[a], names[b]) for a, b in zip(TRUTH[moved], labels[moved], strict=True)}
    one_way = {("truck", "automobile"), ("bird", "airplane"), ("deer", "horse")}
    assert pairs == one_way | {("cat", "dog"), ("dog", "cat")}
    for label in (2, 3, 4, 5, 9):
        rows = np.flatnonzero(label == TRUTH)
        assert near(float(moved[rows].mean()), RATE, len(rows))
    # From the true label, once: cats that became dogs do not turn back.
    assert (flipped("asymmetric_cifar10", rate=1.0) == CIFAR10_TARGETS[TRUTH]).all()


def test_matrix_draws_each_row_of_the_matrix() -> None:
    labels = flipped("matrix")
    for label in range(K):
        counts = np.bincount(labels[label == TRUTH], minlength=K)
        possible = MATRIX[label] > 0
        assert counts[~possible].sum() == 0
        if possible.sum() > 1:
            assert chisquare(counts[possible], MATRIX[label, possible] * counts.sum()).pvalue > 1e-4


def test_a_matrix_that_sums_to_1_but_for_rounding_draws_no_class_beyond_the_last() -> None:
    ids = np.arange(3_000_000, dtype=np.uint64)
    last = ids[[uniform(SEED, LABEL_SALT, ids).argmax()]]
    matrix = np.full((3, 3), (1 - 9e-7) / 3)
    assert uniform(SEED, LABEL_SALT, last)[0] > matrix[0].sum()
    assert flip_labels("matrix", np.zeros(1, np.int64), last, 3, None, SEED, matrix=matrix).tolist() == [2]


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_class_rates_have_the_mean_and_the_widest_range(rate: float) -> None:
    rates = class_rates(K, rate)
    assert rates.mean() == pytest.approx(rate, abs=1e-12)
    assert (rates[0], rates[-1]) == pytest.approx((max(0, 2 * rate - 1), min(1, 2 * rate)))
    assert np.diff(rates) == pytest.approx((rates[-1] - rates[0]) / (K - 1))


def test_per_class_flips_each_class_at_its_own_rate() -> None:
    rates = np.array([0.0, 1.0, *np.linspace(0.1, 0.8, K - 2)])
    for labels, expected in (
        (flip_labels("per_class", TRUTH, IDS, K, None, SEED, rates=rates), rates),
        (flipped("per_class"), class_rates(K, RATE)),
    ):
        for label in range(K):
            rows = np.flatnonzero(label == TRUTH)
            assert near(float(np.mean(labels[rows] != label)), float(expected[label]), len(rows))


# Order, blocks, seeds -----------------------------------------------------------------------------------------------


def draw_labels(kind: str, rows: Array, seed: int = SEED) -> Array:
    """Labels of some rows, of any kind."""
    if kind == "instance":
        return instance_labels(PIXELS[rows], TRUTH[rows], IDS[rows], K, RATE, seed)
    return flipped(kind, TRUTH[rows], IDS[rows], seed)


@pytest.mark.parametrize("kind", [*FLIP_KINDS, "instance"])
@settings(max_examples=20)
@given(data=st.data())
def test_any_order_and_any_split_give_the_same_labels(kind: str, data: st.DataObject) -> None:
    num_rows = 300
    whole = draw_labels(kind, np.arange(num_rows))
    order = np.array(data.draw(st.permutations(range(num_rows))))
    cuts = data.draw(st.lists(st.integers(0, num_rows), max_size=5).map(sorted))
    parts = [draw_labels(kind, part) for part in np.split(order, cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[order])


@pytest.mark.parametrize("kind", [*FLIP_KINDS, "instance"])
def test_another_seed_draws_independently_and_the_same_seed_alike(kind: str) -> None:
    rows = np.arange(4000)
    first, again, other = (draw_labels(kind, rows, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    moved, moved_again = first != TRUTH[rows], other != TRUTH[rows]
    if kind in ("symmetric", "symmetric_exclusive", "next_class"):  # one rate for all rows
        both = float(moved.mean() * moved_again.mean())
        assert near(float((moved & moved_again).mean()), both, len(rows))
    assert (first != other).any()


@pytest.mark.parametrize("kind", ["symmetric", "symmetric_exclusive", "asymmetric_cifar10", "next_class", "per_class"])
def test_what_flips_at_a_rate_flips_alike_at_a_higher_one(kind: str) -> None:
    few, many = flipped(kind, rate=0.1), flipped(kind, rate=0.5)
    moved = few != TRUTH
    np.testing.assert_array_equal(few[moved], many[moved])


def test_samples_of_equal_draw_id_and_truth_get_the_same_label() -> None:
    twice = np.repeat(np.arange(500), 2)
    for kind in FLIP_KINDS:
        labels = draw_labels(kind, twice)
        np.testing.assert_array_equal(labels[::2], labels[1::2])


# Instance noise -----------------------------------------------------------------------------------------------------


def test_instance_labels_equal_the_plain_formula() -> None:
    rows = np.arange(4000)
    labels = draw_labels("instance", rows)
    q = truncnorm(-RATE / 0.1, (1 - RATE) / 0.1, loc=RATE, scale=0.1).ppf(uniform(SEED, RATE_SALT, IDS))
    flip, which = uniform(SEED, FLIP_SALT, IDS), uniform(SEED, LABEL_SALT, IDS)
    for i in rows:
        x = (PIXELS[i].reshape(-1) / 255 - 0.5) / 0.25
        logits = x @ projection(SEED, int(TRUTH[i]), 27, K)
        logits[TRUTH[i]] = -np.inf
        others = np.cumsum(softmax(logits))
        expected = TRUTH[i] if flip[i] >= q[i] else int(np.searchsorted(others, which[i], side="right"))
        assert labels[i] == expected


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 1.0])
def test_instance_noise_has_the_mean_rate_of_the_cut_normal_distribution(rate: float) -> None:
    mean = float(truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).mean())
    labels = instance_labels(PIXELS, TRUTH, IDS, K, rate, SEED)
    assert near(float(np.mean(labels != TRUTH)), mean, N)
    if rate == 0.4:
        assert mean == pytest.approx(rate, abs=1e-4)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_flip_rates_are_the_inverse_distribution_function(rate: float) -> None:
    uniforms = np.array([0.0, 1e-9, 0.01, 0.5, 0.99, 1 - 1e-9, 1 - 2.0**-53])
    rates = truncated_normal(uniforms, rate)
    expected = truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).ppf(uniforms)
    np.testing.assert_allclose(rates[:-1], expected[:-1], atol=1e-6)
    assert ((rates >= 0) & (rates <= 1)).all()


def test_the_image_decides_the_wrong_label_and_not_whether_it_is_wrong() -> None:
    truth = np.zeros(N, np.int32)
    first, second = (instance_labels(images, truth, IDS, K, RATE, SEED) for images in (PIXELS, PIXELS[::-1].copy()))
    np.testing.assert_array_equal(first != truth, second != truth)
    wrong = first != truth
    assert np.mean(first[wrong] != second[wrong]) > 0.5
    # The same image has one distribution of wrong labels, whatever the sample.
    same = np.broadcast_to(PIXELS[:1], PIXELS.shape)
    labels = instance_labels(same, truth, IDS, K, RATE, SEED)
    logits = (PIXELS[0].reshape(-1) / 255 - 0.5) / 0.25 @ projection(SEED, 0, 27, K)
    expected = softmax(np.where(np.arange(K) == 0, -np.inf, logits))
    counts = np.bincount(labels[wrong], minlength=K)
    assert counts[0] == 0
    for label in range(1, K):
        assert near(counts[label] / counts.sum(), float(expected[label]), int(counts.sum()))


def test_the_projections_are_standard_normal_and_exact_in_sums() -> None:
    first, second = projection(SEED, 0, 3000, K), projection(SEED, 1, 3000, K)
    assert abs(first.mean()) < 4 / np.sqrt(first.size)
    assert abs(first.var() - 1) < 4 * np.sqrt(2 / first.size)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(first.size)
    assert (first * 2**16 == np.round(first * 2**16)).all()
    # 255 |W| d stays below 2^53 steps of 2^-16, so no order of the sum rounds, up to images of 1,000 pixels a side.
    assert 255 * np.abs(first).max() * 3e6 * 2**16 < 2**53


def test_two_classes_leave_one_wrong_label() -> None:
    truth = TRUTH % 2
    labels = instance_labels(PIXELS, truth, IDS, 2, RATE, SEED)
    assert near(float(np.mean(labels == 1 - truth)), 0.3004, N)
    assert set(labels.tolist()) == {0, 1}


# Imbalance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "count"), [(10, 5000), (100, 500)])
@pytest.mark.parametrize("ratio", [1, 2, 10, 50, 100])
def test_targets_of_balanced_classes_are_those_of_ldam(num_classes: int, count: int, ratio: int) -> None:
    counts = np.full(num_classes, count)
    long_tail = [int(count * (1 / ratio) ** (k / (num_classes - 1))) for k in range(num_classes)]
    np.testing.assert_array_equal(class_targets("long_tail", counts, ratio), long_tail)
    step = [count] * (num_classes // 2) + [int(count / ratio)] * (num_classes - num_classes // 2)
    np.testing.assert_array_equal(class_targets("step", counts, ratio), step)
    np.testing.assert_array_equal(class_targets("none", counts, ratio), counts)


@given(
    st.sampled_from(["long_tail", "step"]),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=30),
    st.floats(1, 1e6),
    st.floats(1, 10),
)
def test_targets_never_empty_a_class_nor_ask_for_more_than_there_is(
    kind: str, counts: list[int], ratio: float, factor: float
) -> None:
    there = np.array(counts)
    targets = class_targets(kind, there, ratio)
    assert targets.dtype == np.int64
    assert (targets <= there).all()
    assert ((targets > 0) == (there > 0)).all()
    assert (class_targets(kind, there, ratio * factor) <= targets).all()
    balanced = class_targets(kind, np.full(len(counts), 10**7), ratio)
    assert balanced[0] == 10**7 or kind == "step"
    assert (np.diff(balanced) <= 0).all()
    assert balanced[-1] == int(10**7 / ratio) or len(counts) == 1


def test_step_gives_the_odd_class_to_the_second_half_and_small_classes_keep_what_they_have() -> None:
    assert class_targets("step", np.array([90, 30, 90, 5, 0]), 9).tolist() == [90, 30, 10, 5, 0]
    assert class_targets("long_tail", np.array([50, 100, 7]), 100).tolist() == [50, 10, 1]
    assert class_targets("two_class", np.array([8, 40, 100, 3]), 10, [2, 1]).tolist() == [0, 4, 100, 0]
    assert class_targets("two_class", np.array([8, 40, 100, 3]), 10, [2, 3]).tolist() == [0, 0, 100, 1]


@pytest.mark.parametrize("kind", ["none", "long_tail", "step", "two_class"])
def test_exactly_the_targets_are_kept_in_any_blocks(kind: str) -> None:
    targets = class_targets(kind, np.bincount(TRUTH, minlength=K), 7.5, [3, 8] if kind == "two_class" else None)
    thresholds = keep_thresholds(TRUTH, IDS, targets, SEED)
    assert thresholds.dtype == np.uint64
    kept = is_kept(TRUTH, IDS, thresholds, SEED)
    np.testing.assert_array_equal(np.bincount(TRUTH[kept], minlength=K), targets)
    order = np.random.default_rng(3).permutation(N)
    np.testing.assert_array_equal(keep_thresholds(TRUTH[order], IDS[order], targets, SEED), thresholds)
    parts = [is_kept(TRUTH[part], IDS[part], thresholds, SEED) for part in np.split(order, [1, 1, 700, 15_000])]
    np.testing.assert_array_equal(np.concatenate(parts), kept[order])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
    st.integers(0, 5),
)
def test_the_smallest_hashes_stay_and_ties_stay_together(
    rows: list[tuple[int, int]], wanted: list[int], seed: int
) -> None:
    truth = np.array([label for label, _ in rows], np.int64)
    ids = np.array([i for _, i in rows], np.uint64)
    hashes = (seeded_hash(seed, SALT, ids) >> np.uint64(1)).tolist()
    kept = is_kept(truth, ids, keep_thresholds(truth, ids, np.array(wanted), seed), seed)
    for label, target in enumerate(wanted):
        of_class = sorted(hash_ for hash_, y in zip(hashes, truth, strict=True) if y == label)
        stay = [hash_ for hash_ in of_class if target and hash_ <= of_class[min(target, len(of_class)) - 1]]
        found = sorted(hash_ for hash_, y, k in zip(hashes, truth, kept, strict=True) if y == label and k)
        assert found == stay


def test_thresholds_can_say_none_and_all_of_rows_they_never_saw() -> None:
    thresholds = keep_thresholds(TRUTH[TRUTH < 2], IDS[TRUTH < 2], np.array([0, N, 0, 5]), SEED)
    assert thresholds.tolist() == [KEEP_NONE, KEEP_ALL, KEEP_NONE, KEEP_ALL]
    kept = is_kept(TRUTH % 4, IDS, thresholds, SEED)
    np.testing.assert_array_equal(kept, np.isin(TRUTH % 4, [1, 3]))
    # Whatever the hash: the largest of 63 bits is below KEEP_ALL, the least not below KEEP_NONE.
    assert np.uint64(2**64 - 1) >> np.uint64(1) < KEEP_ALL
    assert not np.uint64(0) < KEEP_NONE


@pytest.mark.parametrize("kind", ["long_tail", "step", "two_class"])
def test_kept_rows_are_nested_in_the_ratio(kind: str) -> None:
    counts, pair = np.bincount(TRUTH, minlength=K), [0, 1] if kind == "two_class" else None
    sets = []
    for ratio in (1, 2, 10, 100, 1e5):
        thresholds = keep_thresholds(TRUTH, IDS, class_targets(kind, counts, ratio, pair), SEED)
        sets.append(is_kept(TRUTH, IDS, thresholds, SEED))
    for more, fewer in itertools.pairwise(sets):
        assert not (fewer & ~more).any()
        assert fewer.sum() < more.sum()


@pytest.mark.parametrize("kind", ["symmetric_exclusive", "instance"])
def test_which_rows_stay_says_nothing_of_which_flip(kind: str) -> None:
    targets = class_targets("step", np.bincount(TRUTH, minlength=K), 2)
    kept = is_kept(TRUTH, IDS, keep_thresholds(TRUTH, IDS, targets, SEED), SEED)
    wrong = draw_labels(kind, np.arange(N)) != TRUTH
    for rows in (kept, ~kept):
        assert near(float(wrong[rows].mean()), 0.3, int(rows.sum()))
    steps = (draw_labels("symmetric_exclusive", np.flatnonzero(kept)) - TRUTH[kept]) % K
    assert chisquare(np.bincount(steps, minlength=K)[1:]).pvalue > 1e-4


def test_relabel_numbers_the_pair_in_its_order() -> None:
    truth = np.array([7, 2, 2, 7])
    assert relabel(truth, [7, 2]).tolist() == [0, 1, 1, 0]
    assert relabel(truth, [2, 7]).tolist() == [1, 0, 0, 1]
    assert relabel(truth, [2, 7]).dtype == np.int32
    with pytest.raises(ValueError, match="1 of 4 rows are neither of class 7 nor of class 3"):
        relabel(np.array([7, 3, 3, 2]), [7, 3])


def test_no_rows_are_no_error() -> None:
    none, ids = TRUTH[:0], IDS[:0]
    for kind in FLIP_KINDS:
        assert flipped(kind, none, ids).shape == (0,)
    assert instance_labels(PIXELS[:0], none, ids, K, RATE, SEED).shape == (0,)
    assert keep_thresholds(none, ids, np.array([0, 3]), SEED).tolist() == [KEEP_NONE, KEEP_ALL]
    assert relabel(none, [0, 1]).shape == (0,)


# What is refused ----------------------------------------------------------------------------------------------------

SUMS_TO_2 = np.array([[0.5, 0.5], [1.0, 1.0]])
NEGATIVE = np.array([[1.2, -0.2], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("kind", "num_classes", "rate", "options", "message"),
    [
        ("uniform", 10, 0.3, {}, "noise.kind uniform: no such kind of noise; there are symmetric, "),
        ("symmetric", 10, 1.5, {}, r"noise.rate: found 1.5, expected a number in \[0, 1\]"),
        ("symmetric", 10, -0.1, {}, "noise.rate: found -0.1"),
        ("instance", 10, float("nan"), {}, "noise.rate: found nan"),
        ("symmetric", 10, None, {}, "noise.rate: found None"),
        ("next_class", 1, 0.3, {}, r"noise.kind: found next_class with 1 class\(es\), expected 2 classes or more"),
        ("asymmetric_cifar10", 100, 0.3, {}, "noise.kind: found asymmetric_cifar10 with 100 .*10 classes"),
        ("matrix", 2, None, {}, r"noise.matrix: found shape \(0, 0\), expected P\(given \| true\), \(2, 2\)"),
        ("matrix", 3, None, {"matrix": SUMS_TO_2}, r"noise.matrix: found shape \(2, 2\), expected .*\(3, 3\)"),
        ("matrix", 2, None, {"matrix": SUMS_TO_2}, "noise.matrix: found row 1 with sum 2 .*that sum to 1"),
        ("matrix", 2, None, {"matrix": NEGATIVE}, "noise.matrix: found row 0 with sum 1 and least entry -0.2"),
        ("matrix", 2, None, {"matrix": np.full((2, 2), np.nan)}, "noise.matrix: found row 0"),
        (
            "matrix",
            2,
            0.3,
            {"matrix": np.eye(2)},
            "noise.rate: found one for noise.kind matrix, expected noise.matrix alone",
        ),
        ("symmetric", 2, 0.3, {"matrix": np.eye(2)}, "noise.matrix: found one for noise.kind symmetric"),
        ("symmetric", 2, 0.3, {"rates": np.zeros(2)}, "noise.rates: found one for noise.kind symmetric"),
        (
            "per_class",
            2,
            0.3,
            {"rates": np.zeros(2)},
            "noise: found rate and rates for noise.kind per_class, expected noise.rate or noise.rates",
        ),
        ("per_class", 2, None, {"rates": np.zeros(3)}, r"noise.rates: found shape \(3,\)"),
        ("per_class", 2, None, {"rates": np.array([0.2, 1.1])}, "noise.rates: found 0.2 to 1.1"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(
    kind: str, num_classes: int, rate: float | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_noise(kind, num_classes, rate, **options)
    if kind == "instance":
        assert rate is not None
        with pytest.raises(ConfigError, match=message):
            instance_labels(PIXELS[:0], TRUTH[:0], IDS[:0], num_classes, rate, SEED)
    else:
        with pytest.raises(ConfigError, match=message):
            flip_labels(kind, TRUTH[:0], IDS[:0], num_classes, rate, SEED, **options)


@pytest.mark.parametrize(
    ("kind", "ratio", "classes", "message"),
    [
        ("tail", 10, None, "noise.imbalance tail: no such imbalance; there are long_tail, step, two_class"),
        ("step", 0.1, None, "noise.ratio: found 0.1, expected .* 1 or more"),
        ("long_tail", float("inf"), None, "noise.ratio: found inf"),
        ("long_tail", float("nan"), None, "noise.ratio: found nan"),
        ("two_class", 0.5, [0, 1], "noise.ratio: found 0.5"),
        ("step", 10, [0, 1], r"noise.classes: found \[0, 1\] for noise.imbalance step, expected .*two_class"),
        ("two_class", 10, None, r"noise.classes: found \[\], expected \[a, b\], two different labels in 0..2"),
        ("two_class", 10, [1, 1], r"noise.classes: found \[1, 1\]"),
        ("two_class", 10, [0, 3], r"noise.classes: found \[0, 3\]"),
        ("two_class", 10, [-1, 0], r"noise.classes: found \[-1, 0\]"),
        ("two_class", 10, [0, 1, 2], r"noise.classes: found \[0, 1, 2\]"),
        ("two_class", 10, [0, 2], r"noise.classes: found \[0, 2\], and class 2 has no row"),
    ],
)
def test_imbalance_that_cannot_be_right_is_refused(
    kind: str, ratio: float, classes: Sequence[int] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        class_targets(kind, np.array([5, 5, 0]), ratio, classes)


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"noise\.kind: found instance, expected a kind that reads no image"):
        flip_labels("instance", TRUTH, IDS, K, RATE, SEED)
    with pytest.raises(ValueError, match=r"true labels 0\.\.9 found, 0\.\.8 expected"):
        flip_labels("symmetric", TRUTH, IDS, K - 1, RATE, SEED)
    with pytest.raises(ValueError, match=r"draw ids \(N,\) expected, found \(20000,\) and \(19999,\)"):
        keep_thresholds(TRUTH, IDS[:-1], np.ones(K, np.int64), SEED)
    with pytest.raises(ValueError, match=r"\(20000, S, S, 3\) uint8 images expected"):
        instance_labels(PIXELS[:-1], TRUTH, IDS, K, RATE, SEED)
