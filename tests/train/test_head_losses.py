"""Batches of heads and the gradients at their logits: those of autograd, and partners within a fold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayclean.schema import Array
from rayclean.train.head_losses import logit_gradient, mixed_batch, partners
from rayclean.train.losses import LOSS_NAMES, ce_negative_entropy, cross_entropy, mixup_loss

B, K, H = 12, 5, 3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 99))
def test_partners_are_of_the_same_fold_and_each_row_is_one_once(folds: list[int], seed: int) -> None:
    found = partners(np.array(folds), np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(folds)))
    assert [folds[partner] for partner in found] == folds


def made(soft: bool, weighted: bool) -> tuple[torch.Tensor, Array, Array, Array | None]:
    """Features, folds, targets and weights of a batch."""
    rng = np.random.default_rng(0)
    labels = rng.dirichlet(np.ones(K), B).astype(np.float32) if soft else rng.integers(0, K, B)
    inputs, folds = torch.from_numpy(rng.normal(size=(B, 4)).astype(np.float32)), rng.integers(0, 2, B)
    return inputs, folds, labels, rng.uniform(0, 2, B) if weighted else None


def plain_loss(loss: str, logits: torch.Tensor, targets: Array, weights: Array | None, seed: int) -> torch.Tensor:
    """The sum over a batch (B, K) by the formulas of `losses`, whose means are over the batch."""
    given = torch.from_numpy(targets)
    each = None if weights is None else torch.from_numpy(weights)
    if loss == "ce":
        return len(logits) * cross_entropy(logits, given, each)
    if loss == "ce+ne":
        return len(logits) * ce_negative_entropy(logits, given)
    rng = np.random.default_rng(seed)
    share = rng.beta(1.0, 1.0)
    other = partners(made(False, False)[1], rng)
    return len(logits) * mixup_loss(
        logits, given, given[other], share, each, None if each is None else each[torch.from_numpy(other)]
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_gradient_of_hard_labels_is_that_of_the_formulas_for_networks(loss: str, weighted: bool) -> None:
    inputs, folds, labels, weights = made(False, weighted and loss != "ce+ne")
    batch = mixed_batch(inputs, folds, labels, weights, K, float(loss == "mixup"), np.random.default_rng(5))
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(H, K, B))).requires_grad_()
    total = sum(plain_loss(loss, one.T, labels, weights, 5) for one in logits)
    assert isinstance(total, torch.Tensor)
    total.backward()  # type: ignore[no-untyped-call]
    found = logit_gradient(loss, logits.detach(), batch.target, batch.amount)
    assert logits.grad is not None
    np.testing.assert_allclose(found.numpy(), logits.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "ce+ne"])
def test_the_gradient_of_soft_targets_and_weights_is_autograds(loss: str) -> None:
    inputs, folds, targets, weights = made(True, True)
    assert weights is not None
    batch = mixed_batch(inputs, folds, targets, weights, K, 0.0, np.random.default_rng(5))
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(H, K, B))).requires_grad_()
    logs = torch.log_softmax(logits, dim=1)
    each = -(torch.from_numpy(targets.T) * logs).sum(dim=1)
    each = each + (logs.exp() * logs).sum(dim=1) * (loss == "ce+ne")
    (torch.from_numpy(weights) * each).sum().backward()  # type: ignore[no-untyped-call]
    found = logit_gradient(loss, logits.detach(), batch.target, batch.amount)
    assert logits.grad is not None
    np.testing.assert_allclose(found.numpy(), logits.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_hard_labels_are_soft_targets_that_are_sure(alpha: float) -> None:
    inputs, folds, labels, _ = made(False, False)
    hard, soft = (
        mixed_batch(inputs, folds, each, None, K, alpha, np.random.default_rng(2))
        for each in (labels, np.eye(K)[labels])
    )
    assert torch.equal(hard.target, soft.target)
    assert torch.equal(hard.inputs, soft.inputs)
    assert hard.amount is None
    assert torch.equal(hard.inputs, inputs) == (alpha == 0)


def test_features_of_half_precision_are_mixed_in_single() -> None:
    inputs, folds, labels, _ = made(False, False)
    found = mixed_batch(inputs.half(), folds, labels, None, K, 1.0, np.random.default_rng(2))
    expected = mixed_batch(inputs.half().float(), folds, labels, None, K, 1.0, np.random.default_rng(2))
    assert found.inputs.dtype == torch.float32
    assert torch.equal(found.inputs, expected.inputs)
