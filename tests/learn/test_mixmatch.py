"""The arithmetic of a DivideMix step against the formulas written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from rayclean.learn.mixmatch import (
    Mixing,
    co_guess,
    co_refine,
    draw_mixing,
    mix,
    mixmatch_loss,
    negative_entropy,
    ramped,
    sharpen,
)
from rayclean.schema import Array


def logits_of(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(scale=3, size=shape)


def plain_sharpen(p: Array, temperature: float) -> Array:
    powers = p ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6), st.floats(0.1, 3))
def test_sharpening_is_a_power_and_keeps_the_order(seed: int, num: int, classes: int, temperature: float) -> None:
    p = softmax(logits_of(seed, num, classes), axis=1)
    found = sharpen(torch.from_numpy(p), temperature).numpy()
    np.testing.assert_allclose(found, plain_sharpen(p, temperature), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == p.argmax(axis=1)).all()


def test_sharpening_of_many_equal_small_numbers_keeps_them() -> None:
    p = torch.full((1, 10_000), 1e-4)
    torch.testing.assert_close(sharpen(p, 0.05), p)  # 1e-4 ** 20 is 0 in float32


def test_labels_are_refined_as_far_as_they_are_not_believed() -> None:
    labels, clean = np.array([0, 2, 1]), np.array([1.0, 0.0, 0.3])
    predictions = softmax(logits_of(0, 2, 3, 4), axis=2)
    mixed = clean[:, None] * np.eye(4)[labels] + (1 - clean[:, None]) * predictions.mean(axis=0)
    found = co_refine(torch.from_numpy(labels), torch.from_numpy(clean), torch.from_numpy(predictions), 0.5).numpy()
    np.testing.assert_allclose(found, plain_sharpen(mixed, 0.5), rtol=1e-9)
    np.testing.assert_array_equal(found[0], np.eye(4)[0])
    np.testing.assert_allclose(found[1], plain_sharpen(predictions.mean(axis=0), 0.5)[1])


def test_guesses_are_the_sharpened_mean_of_all_views() -> None:
    predictions = softmax(logits_of(1, 4, 5, 3), axis=2)
    found = co_guess(torch.from_numpy(predictions), 0.5).numpy()
    np.testing.assert_allclose(found, plain_sharpen(predictions.sum(axis=0) / 4, 0.5), rtol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 40), st.floats(0.05, 8))
def test_a_mixing_is_a_permutation_and_leans_to_the_image_itself(seed: int, num_rows: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixing = draw_mixing(num_rows, alpha, generator)
    assert sorted(mixing.partners.tolist()) == list(range(num_rows))
    assert 0.5 <= mixing.share <= 1
    again = draw_mixing(num_rows, alpha, torch.Generator().manual_seed(seed))
    assert again.share == mixing.share
    assert torch.equal(again.partners, mixing.partners)


def test_the_share_is_the_larger_side_of_a_beta_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = np.array([draw_mixing(1, 4.0, generator).share for _ in range(2000)])
    drawn = np.random.default_rng(0).beta(4, 4, 200_000)
    assert shares.mean() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


@pytest.mark.parametrize("num_rows", [None, 2, 4])
def test_rows_are_mixed_with_partners_from_the_whole_batch(num_rows: int | None) -> None:
    values, partners = logits_of(2, 4, 3, 2, 2), np.array([2, 3, 0, 1])
    expected = 0.7 * values + 0.3 * values[partners]
    found = mix(torch.from_numpy(values), Mixing(0.7, torch.from_numpy(partners)), num_rows)
    np.testing.assert_allclose(found.numpy(), expected[:num_rows])


def plain_loss(logits: Array, targets: Array, num_labelled: int) -> tuple[float, float, float]:
    f, log_f = softmax(logits, axis=1), log_softmax(logits, axis=1)
    labelled = -np.mean(np.sum(targets[:num_labelled] * log_f[:num_labelled], axis=1))
    unlabelled = np.mean((f[num_labelled:] - targets[num_labelled:]) ** 2) if num_labelled < len(f) else 0.0
    uniform = np.full(f.shape[1], 1 / f.shape[1])
    return labelled, unlabelled, np.sum(uniform * np.log(uniform / f.mean(axis=0)))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 6), st.integers(2, 5))
def test_the_loss_is_the_papers(seed: int, num_labelled: int, num_rest: int, classes: int) -> None:
    logits = logits_of(seed, num_labelled + num_rest, classes)
    targets = softmax(logits_of(seed + 1, *logits.shape), axis=1)
    found = mixmatch_loss(torch.from_numpy(logits), torch.from_numpy(targets), num_labelled)
    np.testing.assert_allclose(
        [part.item() for part in found], plain_loss(logits, targets, num_labelled), rtol=1e-4, atol=1e-6
    )


def test_the_penalty_is_finite_where_a_class_is_never_predicted() -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    shifted = logits + torch.tensor([0.0, 0.0, -200.0])
    parts = mixmatch_loss(shifted, torch.full((4, 3), 1 / 3), 2)
    parts.penalty.backward()  # type: ignore[no-untyped-call]
    assert parts.penalty.item() == pytest.approx(200 / 3 + math.log(2) - math.log(3), rel=1e-5)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert mixmatch_loss(torch.zeros(2, 3), torch.full((2, 3), 1 / 3), 2).penalty.item() == pytest.approx(0, abs=1e-6)


def test_all_parts_but_the_cross_entropy_are_free_of_a_gradient_where_nothing_is_unlabelled() -> None:
    logits = torch.from_numpy(logits_of(3, 4, 3)).requires_grad_()
    parts = mixmatch_loss(logits, torch.full((4, 3), 1 / 3), 4)
    assert parts.unlabelled.item() == 0
    assert not parts.unlabelled.requires_grad


@pytest.mark.parametrize(
    ("since", "ramp", "wanted"), [(-3, 16, 0), (0, 16, 0), (4, 16, 6.25), (16, 16, 25), (99, 16, 25), (0, 0, 25)]
)
def test_the_weight_of_the_unlabelled_loss_grows(since: float, ramp: float, wanted: float) -> None:
    assert ramped(25, since, ramp) == wanted


def test_negative_entropy_is_lowest_for_uniform_predictions() -> None:
    logits = logits_of(4, 6, 5)
    f = softmax(logits, axis=1)
    assert negative_entropy(torch.from_numpy(logits)).item() == pytest.approx(np.mean(np.sum(f * np.log(f), axis=1)))
    assert negative_entropy(torch.zeros(2, 5)).item() == pytest.approx(-math.log(5))
    assert negative_entropy(torch.tensor([[1e3, 0.0]])).item() == pytest.approx(0)
