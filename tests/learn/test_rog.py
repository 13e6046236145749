"""RoG equals its plain formula, wrong labels hardly move it, and what is awkward (one row, one class) stays finite."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import pinvh
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from rayclean.learn.rog import DRAW_SALT, LinearClassifier, fit_rog, robust_gaussians
from rayclean.schema import Array
from rayclean.storage.draws import seeded_hash


def blobs(seed: int, sizes: list[int], num_features: int, apart: float = 3.0) -> tuple[Array, Array, Array]:
    """Rows of correlated Gaussians in random order, their classes, and the classes' centres."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.standard_normal((len(sizes), num_features))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    mixing = np.eye(num_features) + 0.5 * rng.standard_normal((num_features, num_features)) / np.sqrt(num_features)
    return centres[labels] + rng.standard_normal((len(labels), num_features)) @ mixing, labels, centres


def flipped(labels: Array, rate: float, num_classes: int, seed: int) -> Array:
    """Labels of which a share names one of the other classes."""
    rng = np.random.default_rng(seed)
    moved = (labels + rng.integers(1, num_classes, len(labels))) % num_classes
    return np.where(rng.random(len(labels)) < rate, moved, labels)


def plain_logits(features: Array, labels: Array, num_classes: int, seed: int, share: float, queries: Array) -> Array:
    """The two steps row by row, as the paper tells them; every class has rows."""
    draws = seeded_hash(seed, DRAW_SALT, np.arange(len(labels), dtype=np.uint64))

    def fitted(kept: list[list[int]]) -> tuple[list[Array], Array]:
        means = [np.mean([features[row] for row in rows], axis=0) for rows in kept]
        deviations = [features[row] - mean for rows, mean in zip(kept, means, strict=True) for row in rows]
        return means, pinvh(np.mean([np.outer(each, each) for each in deviations], axis=0))

    rows = [[i for i in range(len(labels)) if labels[i] == k] for k in range(num_classes)]
    nums = [max(1, int(share * len(each))) for each in rows]
    means, precision = fitted([sorted(each, key=lambda i: draws[i])[:n] for each, n in zip(rows, nums, strict=True)])

    def distance(row: int) -> float:
        away = features[row] - means[labels[row]]
        return float(away @ precision @ away)

    means, precision = fitted([sorted(each, key=distance)[:n] for each, n in zip(rows, nums, strict=True)])
    return np.array(
        [[h @ precision @ m - m @ precision @ m / 2 + np.log(1 / num_classes) for m in means] for h in queries]
    )


# The formula --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "num_features", "share"), [([30, 41, 17], 4, 0.7), ([9, 90], 6, 0.5), ([25], 3, 1)])
def test_logits_equal_the_plain_formula(sizes: list[int], num_features: int, share: float) -> None:
    features, labels, _ = blobs(1, sizes, num_features)
    labels = flipped(labels, 0.2, len(sizes), 2) if len(sizes) > 1 else labels
    found = fit_rog(features, labels, len(sizes), seed=5, share=share)
    expected = plain_logits(features, labels, len(sizes), 5, share, features[:20])
    np.testing.assert_allclose(found.logits(features[:20]), expected, rtol=1e-9, atol=1e-9)
    assert found.weight.dtype == found.bias.dtype == np.float64


def test_all_rows_of_clean_classes_give_linear_discriminant_analysis() -> None:
    features, labels, _ = blobs(3, [200, 100, 150], 5)
    ours = fit_rog(features, labels, 3, seed=0, share=1.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels)  # it weights S by its priors
    np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=1e-9, atol=1e-12)
    uniform = theirs.intercept_ - np.log(theirs.priors_) + np.log(1 / 3)
    np.testing.assert_allclose(ours.bias, uniform, rtol=1e-9, atol=1e-12)


@given(
    st.lists(st.integers(0, 25), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0),
    st.integers(1, 8),
    st.floats(0.05, 1),
    st.integers(0, 2**32),
)
def test_any_shape_gives_finite_logits_and_keeps_the_share(
    sizes: list[int], num_features: int, share: float, seed: int
) -> None:
    """Of few rows, fewer rows than features, empty classes."""
    features, labels, _ = blobs(seed, sizes, num_features)
    means, precision, kept = robust_gaussians(features, labels, len(sizes), seed, share)
    assert np.bincount(labels[kept], minlength=len(sizes)).tolist() == [
        min(size, max(1, int(share * size))) for size in sizes
    ]
    np.testing.assert_allclose(precision, precision.T, rtol=1e-6, atol=1e-6 * np.abs(precision).max())
    classifier = fit_rog(features, labels, len(sizes), seed, share)
    logits = classifier.logits(features)
    empty = np.array(sizes) == 0
    assert np.isfinite(logits[:, ~empty]).all()
    assert (logits[:, empty] == -np.inf).all()
    assert (means[empty] == 0).all()
    assert not np.isin(logits.argmax(axis=1), np.flatnonzero(empty)).any()


# Wrong labels -------------------------------------------------------------------------------------------------------


def test_wrong_labels_hardly_move_the_means() -> None:
    """A fifth names another class: the plain means go a fifth of the way, those of the nearest rows stay."""
    features, labels, centres = blobs(7, [400] * 4, 6, apart=4.0)
    wrong = flipped(labels, 0.2, 4, 8)
    means, _, kept = robust_gaussians(features, wrong, 4, seed=0)
    plain = np.array([features[wrong == k].mean(axis=0) for k in range(4)])
    assert (labels[kept] == wrong[kept]).mean() > 0.995
    moved, moved_plain = (np.linalg.norm(each - centres, axis=1) for each in (means, plain))
    assert (moved < 0.3).all()
    assert (moved_plain > 5 * moved).all()


def test_far_wrong_labels_do_not_count_at_all() -> None:
    """Fewer wrong ones than are left out, however far away: the last fit is one of right rows alone."""
    features, labels, _ = blobs(9, [200, 200], 3)
    wrong = np.flatnonzero(labels == 0)[:40]
    near, far = (features.copy() for _ in range(2))
    near[wrong] += 1e3
    far[wrong] += 1e5
    one, other = (robust_gaussians(each, labels, 2, seed=0) for each in (near, far))
    for each in (one, other):
        assert not each.kept[wrong].any()
    assert np.abs(one.means[0] - other.means[0]).max() < 0.3


@pytest.mark.parametrize("kind", ["random", "next"])
def test_it_predicts_the_truth_more_often_than_a_fit_to_all_labels(kind: str) -> None:
    """While fewer labels are wrong than are left out."""
    features, labels, _ = blobs(11, [600, 300, 150, 450, 500, 250], 8, apart=1.5)
    turned = np.where(np.random.default_rng(12).random(len(labels)) < 0.2, (labels + 1) % 6, labels)
    wrong = flipped(labels, 0.2, 6, 12) if kind == "random" else turned
    robust, plain = (fit_rog(features, wrong, 6, seed=0, share=share) for share in (0.7, 1.0))
    right, right_plain = ((each.logits(features).argmax(axis=1) == labels).mean() for each in (robust, plain))
    assert right > right_plain + 0.005
    assert right > 0.9


# Draws --------------------------------------------------------------------------------------------------------------


def test_a_seed_fixes_the_classifier_and_another_one_changes_it() -> None:
    features, labels, _ = blobs(13, [50, 60], 4)
    labels = flipped(labels, 0.3, 2, 14)
    one, again, other = (fit_rog(features, labels, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weight, again.weight)
    np.testing.assert_array_equal(one.bias, again.bias)
    assert (one.weight != other.weight).any()


def test_with_ids_the_order_of_the_rows_does_not_matter() -> None:
    features, labels, _ = blobs(15, [40, 30, 20], 4)
    labels = flipped(labels, 0.3, 3, 16)
    ids = np.random.default_rng(17).integers(0, 2**63, len(labels)).astype(np.uint64)
    order = np.random.default_rng(18).permutation(len(labels))
    one = robust_gaussians(features, labels, 3, 0, ids=ids)
    other = robust_gaussians(features[order], labels[order], 3, 0, ids=ids[order])
    np.testing.assert_array_equal(one.kept[order], other.kept)
    np.testing.assert_allclose(one.means, other.means, rtol=1e-12)
    np.testing.assert_allclose(one.precision, other.precision, rtol=1e-9, atol=1e-12)


def test_prediction_does_not_depend_on_the_axes() -> None:
    """Mahalanobis distances and the discriminant are the same in any invertible linear map of the features."""
    features, labels, _ = blobs(19, [80, 70, 60], 4)
    labels = flipped(labels, 0.3, 3, 20)
    axes = np.random.default_rng(21).standard_normal((4, 4)) + 3 * np.eye(4)
    here, there = fit_rog(features, labels, 3, 0), fit_rog(features @ axes, labels, 3, 0)
    np.testing.assert_allclose(there.logits(features @ axes), here.logits(features), rtol=1e-6, atol=1e-6)


# What is awkward ----------------------------------------------------------------------------------------------------


def test_one_class_is_always_predicted() -> None:
    features, labels, _ = blobs(22, [12], 3)
    assert fit_rog(features, labels, 1, 0).logits(features).argmax(axis=1).tolist() == [0] * 12
    only = fit_rog(features, labels + 4, 7, 0)
    assert only.logits(features).argmax(axis=1).tolist() == [4] * 12
    assert np.flatnonzero(np.isfinite(only.bias)).tolist() == [4]


def test_one_row_a_class_gives_the_nearest_one() -> None:
    features = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 7.0]])
    classifier = fit_rog(features, np.arange(3), 3, 0)
    queries = np.array([[1.0, 1.0], [6.0, 1.0], [1.0, 5.0]])
    assert classifier.logits(queries).argmax(axis=1).tolist() == [0, 1, 2]
    # Many equal rows a class are the same: the rounding of their means is no spread.
    repeated = fit_rog(np.repeat(features + 1 / 3, 10, axis=0), np.repeat(np.arange(3), 10), 3, 0)
    assert repeated.logits(queries + 1 / 3).argmax(axis=1).tolist() == [0, 1, 2]


def test_more_features_than_rows_and_constant_ones() -> None:
    features, labels, _ = blobs(23, [15, 15], 60, apart=1.0)
    features = np.concatenate([features, np.full((30, 5), 0.1), np.zeros((30, 5))], axis=1)
    found = fit_rog(features, labels, 2, 0)
    assert np.isfinite(found.weight).all()
    assert np.abs(found.weight[:, 60:]).max() < 1e-9 * np.abs(found.weight).max()
    assert np.abs(found.weight).max() < 1e4


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stored_features_are_computed_in_float64(dtype: type[np.floating]) -> None:
    features, labels, _ = blobs(24, [300, 300], 5)
    stored = (features * 100).astype(dtype)  # sums of squares pass what float16 can hold
    found = fit_rog(stored, labels, 2, 0)
    expected = fit_rog(stored.astype(np.float64), labels, 2, 0)
    np.testing.assert_array_equal(found.weight, expected.weight)
    np.testing.assert_array_equal(found.logits(stored), expected.logits(stored.astype(np.float64)))


def test_memory_stays_far_below_the_features_in_float64() -> None:
    """60,000 rows of 256 features would be 123 MB; a chunk is 32 MiB and a step holds a few of them."""
    features = np.zeros((60_000, 256), np.float16)
    features[:] = np.random.default_rng(0).standard_normal((1, 256))
    features[::7] += 1
    labels = np.arange(60_000) % 2
    tracemalloc.start()
    fit_rog(features, labels, 2, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 85e6


def test_wrong_input_is_refused() -> None:
    features, labels = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"found \(4, 2\) and \(3,\)"):
        fit_rog(features, labels[:3], 2, 0)
    with pytest.raises(ValueError, match="at least one row"):
        fit_rog(features[:0], labels[:0], 2, 0)
    with pytest.raises(ValueError, match=r"labels in 0\.\.1 expected, found 0\.\.2"):
        fit_rog(features, labels * 2, 2, 0)
    with pytest.raises(ValueError, match=r"found -1\.\.1"):
        fit_rog(features, labels * 2 - 1, 2, 0)
    for share in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="share above 0 and up to 1"):
            fit_rog(features, labels, 2, 0, share)
    for row in range(4):  # whether the first draw takes it or not
        broken = features + np.arange(8).reshape(4, 2)
        broken[row, 1] = np.nan
        with pytest.raises(ValueError, match="finite features expected"):
            fit_rog(broken, labels, 2, 0)
    with pytest.raises(ValueError, match=r"features \(N, 2\) expected, found \(4, 3\)"):
        LinearClassifier(np.zeros((2, 2)), np.zeros(2)).logits(np.zeros((4, 3)))
