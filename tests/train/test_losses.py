"""Losses against their formulas in float64; MixUp's draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import ConfigError
from rayclean.train.losses import LOSS_NAMES, ce_negative_entropy, cross_entropy, mixup, mixup_loss, training_loss

SEEDS = st.integers(0, 2**32 - 1)


def _batch(seed: int, num: int = 6, num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 5, (num, num_classes)))
    return logits, torch.from_numpy(rng.integers(0, num_classes, num))


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """-log f_y of each row, by hand."""
    rows = []
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        top = max(z)
        rows.append(top + math.log(sum(math.exp(v - top) for v in z)) - z[y])
    return rows


@settings(deadline=None)
@given(SEEDS)
def test_cross_entropy_is_the_mean_loss(seed: int) -> None:
    logits, labels = _batch(seed)
    assert cross_entropy(logits, labels).item() == pytest.approx(np.mean(_losses(logits, labels)), abs=1e-12)


@settings(deadline=None)
@given(SEEDS)
def test_weights_count_each_samples_loss(seed: int) -> None:
    logits, labels = _batch(seed)
    weights = torch.from_numpy(np.random.default_rng(seed).random(len(labels)))
    expected = np.mean(weights.numpy() * _losses(logits, labels))
    assert cross_entropy(logits, labels, weights).item() == pytest.approx(expected, abs=1e-12)
    assert cross_entropy(logits, labels, torch.ones(len(labels))).item() == pytest.approx(
        cross_entropy(logits, labels).item(), abs=1e-12
    )


@pytest.mark.parametrize("kind", ["ce", "mixup"])
def test_a_weight_of_0_takes_a_sample_out(kind: str) -> None:
    images, weights = torch.randn(6, 3, 2, 2), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(of_third: int) -> float:
        changed = labels.clone()
        changed[2] = of_third
        generator = torch.Generator().manual_seed(0)
        return training_loss(kind, lambda x: x.flatten(1)[:, :3], images, changed, 1.0, generator, weights).item()

    assert loss(0) == loss(1) == loss(2)


def test_negative_entropy_takes_no_weights() -> None:
    with pytest.raises(ConfigError, match="takes no weights"):
        training_loss(
            "ce+ne", lambda x: x, torch.zeros(1, 3, 1, 1), torch.zeros(1).long(), 1.0, torch.Generator(), torch.ones(1)
        )


@settings(deadline=None)
@given(SEEDS)
def test_ce_with_negative_entropy_is_ce_minus_the_entropy(seed: int) -> None:
    logits, labels = _batch(seed)
    entropy = []
    for z in logits.tolist():
        f = [math.exp(v - max(z)) for v in z]
        f = [v / sum(f) for v in f]
        entropy.append(-sum(v * math.log(v) for v in f if v > 0))
    expected = np.mean(_losses(logits, labels)) - np.mean(entropy)
    loss = ce_negative_entropy(logits, labels).item()
    assert loss == pytest.approx(expected, abs=1e-10)
    assert loss >= -math.log(logits.shape[1])


def test_ce_with_negative_entropy_is_finite_for_certain_predictions() -> None:
    logits = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = ce_negative_entropy(logits, torch.tensor([0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]


@settings(deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_mixup_loss_is_the_weighted_sum(seed: int, lam: float) -> None:
    logits, labels_a = _batch(seed)
    labels_b = labels_a.flip(0)
    expected = lam * np.mean(_losses(logits, labels_a)) + (1 - lam) * np.mean(_losses(logits, labels_b))
    assert mixup_loss(logits, labels_a, labels_b, lam).item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([0.1, 1.0, 32.0]))
def test_mixup_mixes_each_image_with_the_image_of_the_other_label(seed: int, alpha: float) -> None:
    num = 7
    labels = torch.arange(num)  # a label for each image, so that the partners can be read off
    images = torch.randn(num, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mixed, labels_a, labels_b, lam = mixup(images, labels, alpha, torch.Generator().manual_seed(seed))
    assert 0 <= lam <= 1
    assert torch.equal(labels_a, labels)
    assert torch.equal(labels_b.sort().values, labels)
    torch.testing.assert_close(mixed, lam * images[labels_a] + (1 - lam) * images[labels_b])
    again = mixup(images, labels, alpha, torch.Generator().manual_seed(seed))
    assert torch.equal(again[0], mixed)
    assert again[3] == lam


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_lambda_has_the_moments_of_its_distribution(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image, label = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)
    drawn = np.array([mixup(image, label, alpha, generator)[3] for _ in range(3000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.04)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_mixup_keeps_channels_last_and_the_global_generator() -> None:
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = torch.get_rng_state()
    mixed, *_ = mixup(images, torch.arange(4), 1.0, torch.Generator().manual_seed(0))
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_kind_of_training_loss_is_its_formula() -> None:
    images, labels = torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0])

    def model(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :4]

    def loss(kind: str) -> torch.Tensor:
        return training_loss(kind, model, images, labels, 1.0, torch.Generator().manual_seed(3))

    mixed, labels_a, labels_b, lam = mixup(images, labels, 1.0, torch.Generator().manual_seed(3))
    expected = {
        "mixup": mixup_loss(model(mixed), labels_a, labels_b, lam),
        "ce": cross_entropy(model(images), labels),
        "ce+ne": ce_negative_entropy(model(images), labels),
    }
    assert set(expected) == set(LOSS_NAMES)
    for kind, value in expected.items():
        assert loss(kind).ndim == 0
        assert torch.equal(loss(kind), value)
    with pytest.raises(ConfigError, match=r"train\.loss: unknown name 'mse'; valid: mixup"):
        loss("mse")
