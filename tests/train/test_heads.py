"""Linear heads on features: blind to a fold to the last bit, a plain formula, and sets that are hardly there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayclean.schema import Array
from rayclean.train.head_layers import STRENGTH
from rayclean.train.head_loop import MOMENTUM, train_heads
from rayclean.train.head_losses import partners
from rayclean.train.heads import LEAST_STEPS, MOST_STEPS, Heads, HeadSettings, stable_rate, standardized
from rayclean.train.plan import epoch_seed

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = HeadSettings(weight_decays=(0.01, 1.0), folds=3, epochs=2, batch_size=16)


def layer_of(heads: Heads, head: int) -> tuple[Array, Array]:
    """Weight and bias of a head's last layer."""
    arrays = heads.head(head).arrays()
    return arrays["head.weight"], arrays["head.bias"]


def made(num_rows: int = 48, num_features: int = 5, num_classes: int = 4) -> tuple[torch.Tensor, Array, Array]:
    """Standardized features, labels and folds."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(num_rows, num_features)) + np.arange(num_rows)[:, None] % 7
    labels, folds = rng.integers(0, num_classes, num_rows), rng.integers(0, FEW.folds, num_rows)
    return torch.from_numpy(standardized(features)), labels, folds


def last_of(each: Iterator[Heads]) -> Heads:
    *_, heads = each
    return heads


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("fold", range(FEW.folds))
def test_a_head_has_seen_no_label_of_its_fold(fold: int, alpha: float) -> None:
    features, labels, folds = made()
    settings = HeadSettings(FEW.weight_decays, FEW.folds, FEW.epochs, FEW.batch_size, alpha)
    others = np.where(folds == fold, (labels + 1) % 4, labels)
    one, other = (last_of(train_heads(features, given, folds, 4, settings, 7)) for given in (labels, others))
    for decay in range(len(settings.weight_decays)):
        blind, seeing = one.blind_to(fold, decay), one.seeing(decay)
        for mine, its in zip(layer_of(one, blind), layer_of(other, blind), strict=True):
            assert mine.tobytes() == its.tobytes()
        assert layer_of(one, seeing)[0].tobytes() != layer_of(other, seeing)[0].tobytes()
        rows = folds == fold
        logits = [heads.blind_logits(features, decay)[rows] for heads in (one, other)]
        assert logits[0].tobytes() == logits[1].tobytes()


def test_every_row_is_judged_by_its_own_head() -> None:
    features, labels, folds = made()
    heads = last_of(train_heads(features, labels, folds, 4, FEW, 7))
    for decay in range(2):
        found = heads.blind_logits(features, decay)
        for row, fold in enumerate(folds):
            weight, bias = layer_of(heads, heads.blind_to(fold, decay))
            np.testing.assert_allclose(found[row], weight @ features[row].numpy() + bias, atol=1e-4)
        weight, bias = layer_of(heads, heads.seeing(decay))
        np.testing.assert_allclose(heads.seeing_logits(features, decay), features.numpy() @ weight.T + bias, atol=1e-4)


def plain_heads(features: Array, labels: Array, folds: Array, settings: HeadSettings, seed: int, steps: int) -> Array:
    """(H, K, d + 1) heads after some epochs of one step each: one head after the other, one row after the other."""
    (num_rows, num_features), num_classes = features.shape, int(labels.max()) + 1
    rate, epochs = stable_rate(torch.from_numpy(features), seed), settings.epochs_of(num_rows)
    found = []
    for decay in settings.weight_decays:
        for left_out in (*range(settings.folds), None):
            layer, speed = np.zeros((2, num_classes, num_features + 1))
            for epoch in range(steps):
                rng = np.random.default_rng(epoch_seed(seed, epoch, 0, "heads"))
                rows = rng.permutation(num_rows)
                share = rng.beta(settings.alpha, settings.alpha)
                second = rows[partners(folds[rows], rng)]
                gradient, seen = np.zeros_like(layer), folds[rows] != left_out
                for a, b in zip(rows[seen], second[seen], strict=True):
                    mixed = np.append(share * features[a] + (1 - share) * features[b], 1)
                    logits = layer @ mixed
                    target = share * np.eye(num_classes)[labels[a]] + (1 - share) * np.eye(num_classes)[labels[b]]
                    error = np.exp(logits) / np.exp(logits).sum() - target
                    gradient += np.outer(error, mixed) / seen.sum()
                gradient[:, :-1] += decay * layer[:, :-1]
                speed = MOMENTUM * speed + gradient
                at = rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
                layer = layer - at * (gradient + MOMENTUM * speed)
            found.append(layer)
    return np.array(found)


@pytest.mark.parametrize("num_features", [1, 5, 70])
def test_heads_equal_a_plain_loop(num_features: int) -> None:
    features, labels, folds = made(30, num_features)
    settings = HeadSettings(FEW.weight_decays, FEW.folds, 1, 64)
    for epoch, heads in zip(range(1, 4), train_heads(features, labels, folds, 4, settings, 3), strict=False):
        expected = plain_heads(features.numpy(), labels, folds, settings, 3, epoch)
        for head, layer in enumerate(expected):
            weight, bias = layer_of(heads, head)
            np.testing.assert_allclose(np.column_stack([weight, bias]), layer, rtol=1e-3, atol=1e-5)


@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 99))
def test_scale_shift_and_constant_columns_change_nothing(num_rows: int, num_features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, num_features)).astype(np.float32)
    expected = standardized(features)
    np.testing.assert_allclose(np.square(expected).sum(axis=1).mean(), STRENGTH, rtol=1e-3)
    np.testing.assert_allclose(expected.mean(axis=0), 0, atol=1e-2)
    scale = np.exp2(rng.integers(-20, 20, num_features)).astype(np.float32)
    assert standardized(features * scale).tobytes() == expected.tobytes(), "each column may have a unit of its own"
    np.testing.assert_allclose(standardized(features + np.float32(3)), expected, rtol=1e-2, atol=1e-2)
    wider = np.column_stack([features, np.full(num_rows, 0.1), np.zeros(num_rows), np.full(num_rows, -1e6)])
    np.testing.assert_array_equal(standardized(wider)[:, :num_features], expected)
    assert not standardized(wider)[:, num_features:].any()


def test_an_epoch_is_all_rows_and_there_are_enough_steps_and_not_too_many() -> None:
    settings = HeadSettings(epochs=12, batch_size=100)
    for num_rows in (1, 99, 100, 101, 10_000, 10**5, 10**6):
        steps = settings.steps_of(num_rows)
        assert (steps - 1) * 100 < num_rows <= steps * 100
        epochs = settings.epochs_of(num_rows)
        assert epochs >= 1
        assert epochs * steps >= LEAST_STEPS
        assert epochs >= 12 or (epochs + 1) * steps > MOST_STEPS
        assert epochs <= 12 or (epochs - 1) * steps < LEAST_STEPS
    features, labels, folds = made()
    assert len(list(train_heads(features, labels, folds, 4, FEW, 0))) == FEW.epochs_of(len(labels))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("num_rows", "num_classes"), [(1, 1), (1, 2), (2, 2), (6, 1), (6, 3), (6, 9)])
def test_sets_that_are_hardly_there(num_rows: int, num_classes: int) -> None:
    features, _, folds = made(num_rows)
    labels = np.minimum(np.arange(num_rows), num_classes - 1)  # most classes have one row
    heads = last_of(train_heads(features, labels, folds, num_classes, FEW, 0))
    for decay in range(2):
        for logits in (heads.blind_logits(features, decay), heads.seeing_logits(features, decay)):
            assert logits.shape == (num_rows, num_classes)
            assert np.isfinite(logits).all()


def test_features_that_are_all_alike_do_not_overshoot() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    features = standardized((labels[:, None] + 0.01 * rng.normal(size=(200, 300))).astype(np.float32))
    folds = rng.integers(0, FEW.folds, 200)
    heads = last_of(train_heads(torch.from_numpy(features), labels, folds, 2, FEW, 0))
    assert (heads.blind_logits(torch.from_numpy(features), 0).argmax(axis=1) == labels).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    features, labels, folds = made()
    found = [
        last_of(train_heads(features, labels, folds, 4, FEW, seed)).tensors["weight"].numpy().tobytes()
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
