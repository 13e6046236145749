"""Soft targets: the plain formula of their loss, what a file keeps of them, and how well a weight decay does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from rayclean.errors import ConfigError
from rayclean.learn.decay import likelihood, tempered
from rayclean.learn.targets import SoftTargets, packed_posterior
from rayclean.schema import LEFT_OUT, Array
from rayclean.train.batches import Lesson
from rayclean.train.losses import cross_entropy, mixup, training_loss

SIZES = st.tuples(st.integers(1, 9), st.integers(2, 130))


def made(num_rows: int, num_classes: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Probabilities of the classes and of none of them, logits, and given labels."""
    rng = np.random.default_rng(seed)
    whole = rng.dirichlet(np.full(num_classes + 1, 0.1), num_rows)
    return whole, rng.normal(size=(num_rows, num_classes)), rng.integers(0, num_classes, num_rows)


@given(SIZES, st.integers(0, 5))
def test_the_loss_of_soft_targets_is_the_plain_formula(sizes: tuple[int, int], seed: int) -> None:
    whole, logits, _ = made(*sizes, seed)
    targets, weights = whole[:, :-1] / whole[:, :-1].sum(axis=1, keepdims=True), 1 - whole[:, -1]
    expected = -(targets * log_softmax(logits, axis=1)).sum(axis=1)
    found, weighted = (
        float(cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), each))
        for each in (None, torch.from_numpy(weights))
    )
    assert found == pytest.approx(expected.mean())
    assert weighted == pytest.approx((weights * expected).sum() / len(weights))


def test_mixed_soft_targets_are_one_loss() -> None:
    """lambda CE(f, a) + (1 - lambda) CE(f, b) is the cross-entropy with the mixed targets."""
    whole, _, _ = made(8, 5)
    targets = torch.from_numpy(whole[:, :-1] / whole[:, :-1].sum(axis=1, keepdims=True))
    images, layer = torch.randn(8, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    found = training_loss("mixup", lambda x: x @ layer, images, targets, 1.0, torch.Generator().manual_seed(1))
    mixed, own, partners, share = mixup(images, torch.arange(8), 1.0, torch.Generator().manual_seed(1))
    wanted = share * targets[own] + (1 - share) * targets[partners]
    assert float(found) == pytest.approx(float(-(wanted * torch.log_softmax(mixed @ layer, 1)).sum(1).mean()))


def test_negative_entropy_takes_no_soft_targets() -> None:
    with pytest.raises(ConfigError, match="no soft labels"):
        training_loss("ce+ne", lambda x: x, torch.ones(2, 3), torch.ones(2, 3) / 3, 1.0, torch.Generator())


@given(SIZES, st.integers(0, 5))
def test_a_file_gives_the_targets_back(sizes: tuple[int, int], seed: int) -> None:
    whole, _, labels = made(*sizes, seed)
    arrays = packed_posterior(whole, labels)
    found = SoftTargets(arrays, sizes[1])(np.arange(sizes[0]))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(arrays["weights"], 1 - whole[:, -1], atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), arrays["labels"])
    if sizes[1] <= 100:
        np.testing.assert_allclose(found, whole[:, :-1] / (1 - whole[:, -1:]), atol=1e-5)
    else:
        assert ((found > 0).sum(axis=1) <= 21).all()
        assert arrays["values"].shape == (sizes[0], 21)


def test_what_is_none_of_the_classes_is_left_out() -> None:
    whole = np.array([[0.0, 0.0, 1.0], [0.25, 0.5, 0.25]])
    arrays = packed_posterior(whole, np.array([0, 0]))
    assert arrays["labels"].tolist() == [LEFT_OUT, 1]
    np.testing.assert_allclose(arrays["weights"], [0, 0.75])
    lesson = Lesson(arrays["labels"], arrays["weights"], SoftTargets(arrays, 2))
    batch = lesson.batch(lesson.rows, np.zeros((1, 1, 1, 3), np.float32))
    np.testing.assert_allclose(batch.labels, [[1 / 3, 2 / 3]], rtol=1e-6)


@given(SIZES)
def test_a_likelihood_is_that_of_the_labels_or_of_their_shares(sizes: tuple[int, int]) -> None:
    _, logits, labels = made(*sizes)
    one_hot = np.eye(sizes[1])[labels]
    weights = np.arange(1, sizes[0] + 1) / 7
    found = likelihood(logits, labels, weights)
    assert found == pytest.approx(likelihood(logits, one_hot, weights))
    each = log_softmax(logits, axis=1)[np.arange(sizes[0]), labels]
    assert found == pytest.approx((weights * each).sum() / weights.sum())
    assert likelihood(1e3 * one_hot, labels) == pytest.approx(0)


@given(SIZES, st.floats(0.1, 10))
def test_how_sure_all_logits_are_changes_no_likelihood_at_its_best_temperature(
    sizes: tuple[int, int], factor: float
) -> None:
    _, logits, labels = made(sizes[0] + 20, sizes[1])
    found, scaled = tempered(logits, labels), tempered(factor * logits, labels)
    assert found.likelihood >= likelihood(logits, labels) - 1e-6
    assert found.likelihood == pytest.approx(likelihood(logits / found.temperature, labels))
    if 0.1 < found.temperature < 2:
        assert scaled.likelihood == pytest.approx(found.likelihood, abs=1e-3)
