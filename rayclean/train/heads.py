"""Linear classifiers on features that are there: several at once, each blind to a fold of the rows [our choice].

A head that has not seen a row's label says something of that label. So for each weight decay there are F heads that are
each blind to one fold, and one that sees all rows. One matrix product gives the logits of all of them; a mask tells
which rows a head learns from. They learn by MixUp between features, whose partners are drawn within a fold, so that no
row of a fold reaches the head that is blind to it.

Letters: N rows, d features, K classes, F folds, H heads in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rayclean.schema import Array
from rayclean.train.plan import epoch_seed

STRENGTH = 1280.0  # squared length of an average row of features, to which rate and weight decays belong
RATE = 0.02
MOMENTUM = 0.9
LEAST_STEPS, MOST_STEPS = 240, 2400
POWER_STEPS = 20
STABLE = 2.0  # the rate times the largest eigenvalue of the features' second moments stays below
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class HeadSettings:
    """How heads learn.

    Attributes:
        weight_decays: each has heads of its own; small ones follow the labels, large ones resist strong noise.
        folds: F, at least 2.
        epochs: more where there are so few rows that these would be under `LEAST_STEPS` steps, fewer past `MOST_STEPS`.
        alpha: of MixUp's beta distribution; 0 without.
    """

    weight_decays: tuple[float, ...] = (0.03, 0.3, 1.0)
    folds: int = 5
    epochs: int = 12
    batch_size: int = 256
    alpha: float = 1.0

    def epochs_of(self, num_rows: int) -> int:
        """Epochs over so many rows."""
        steps = self.steps_of(num_rows)
        return max(min(self.epochs, MOST_STEPS // steps), -(-LEAST_STEPS // steps))

    def steps_of(self, num_rows: int) -> int:
        """Steps an epoch."""
        return -(-num_rows // self.batch_size)


@dataclass
class Heads:
    """Heads after an epoch.

    Attributes:
        weight: (d, H, K) float32.
        bias: (H, K) float32.
        folds: (N,) int64, the fold of each row.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    folds: Array
    settings: HeadSettings

    def blind_logits(self, features: torch.Tensor, decay: int) -> Array:
        """(N, K) float32 logits of all rows, each by the head of that weight decay that has not seen its label."""
        found = np.empty((len(features), self.bias.shape[1]), np.float32)
        for fold in range(self.settings.folds):
            rows = np.flatnonzero(self.folds == fold)
            found[rows] = self.logits(features, rows, self.blind_to(fold, decay))
        return found

    def seeing_logits(self, features: torch.Tensor, decay: int) -> Array:
        """(N, K) float32 logits by the head of that weight decay that has seen all labels."""
        return self.logits(features, np.arange(len(features)), self.seeing(decay))

    def seeing(self, decay: int) -> int:
        """The head of a weight decay that has seen all labels."""
        return decay * (self.settings.folds + 1) + self.settings.folds

    def blind_to(self, fold: int, decay: int) -> int:
        """The head of a weight decay that has not seen a fold."""
        return decay * (self.settings.folds + 1) + fold

    def layer(self, head: int) -> tuple[Array, Array]:
        """(K, d) weight and (K,) bias of a head, as of now."""
        return self.weight[:, head].T.cpu().numpy().copy(), self.bias[head].cpu().numpy().copy()

    def logits(self, features: torch.Tensor, rows: Array, head: int) -> Array:
        """(R, K) float32 logits of some rows by one head."""
        weight, bias = self.weight[:, head], self.bias[head]
        parts = [
            torch.addmm(bias, features[torch.from_numpy(rows[start : start + ROWS_AT_ONCE])], weight).cpu().numpy()
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(bias)), np.float32)


def standardized(features: Array) -> Array:
    """Features (N, d) float32 with mean 0 and equal deviations, of squared length `STRENGTH` on average.

    The recipe of a head then holds for any number of features. Constant columns become 0.
    """
    values = np.asarray(features, np.float32)
    mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-30)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0) * np.sqrt(STRENGTH / max(int(varies.sum()), 1))
    result: Array = ((values - mean.astype(np.float32)) * scale.astype(np.float32)).astype(np.float32)
    return result


def train_heads(
    features: torch.Tensor, labels: Array, folds: Array, num_classes: int, settings: HeadSettings, seed: int
) -> Iterator[Heads]:
    """Trains all heads, and yields them after each epoch: the same object, whose weights go on changing.

    Args:
        features: (N, d) float32 of `standardized`, on the device that they learn on.
        labels: (N,) integers 0..K-1.
        folds: (N,) integers 0..F-1.
        num_classes: K.
        settings: how.
        seed: of the order of the rows and of MixUp.
    """
    num_heads = len(settings.weight_decays) * (settings.folds + 1)
    device, num_rows = features.device, len(features)
    shape = (features.shape[1], num_heads * num_classes)
    weight, bias = torch.zeros(shape, device=device), torch.zeros(shape[1], device=device)
    speed = torch.zeros_like(weight), torch.zeros_like(bias)
    decays = np.repeat(np.array(settings.weight_decays, np.float32), (settings.folds + 1) * num_classes)
    decay = torch.from_numpy(decays).to(device)
    # (F, H) whether a head learns from a fold
    seen = np.tile(np.vstack([1 - np.eye(settings.folds), np.ones(settings.folds)]), (len(settings.weight_decays), 1)).T
    keep, given = torch.from_numpy(seen.astype(np.float32)).to(device), torch.from_numpy(labels.astype(np.int64))
    rate, epochs = _stable_rate(features, seed), settings.epochs_of(num_rows)
    step, steps = 0, epochs * settings.steps_of(num_rows)
    heads = Heads(weight.view(-1, num_heads, num_classes), bias.view(num_heads, num_classes), folds, settings)
    for epoch in range(epochs):
        rng = np.random.default_rng(epoch_seed(seed, epoch, 0, "heads"))
        for rows in np.array_split(rng.permutation(num_rows), settings.steps_of(num_rows)):
            share = rng.beta(settings.alpha, settings.alpha) if settings.alpha else 1.0
            first, second = torch.from_numpy(rows), torch.from_numpy(rows[_partners(folds[rows], rng)])
            inputs = share * features[first.to(device)] + (1 - share) * features[second.to(device)]
            target = torch.zeros(len(rows), num_classes)
            target[torch.arange(len(rows)), given[first]] += share
            target[torch.arange(len(rows)), given[second]] += 1 - share
            mask = keep[torch.from_numpy(folds[rows]).to(device)]
            mask = mask / mask.sum(dim=0).clamp(min=1)
            beliefs = torch.softmax(torch.addmm(bias, inputs, weight).view(len(rows), num_heads, -1), dim=2)
            error = ((beliefs - target.to(device)[:, None]) * mask[:, :, None]).view(len(rows), -1)
            gradients = torch.addcmul(inputs.T @ error, weight, decay), error.sum(dim=0)
            at = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            for value, velocity, gradient in zip((weight, bias), speed, gradients, strict=True):
                velocity.mul_(MOMENTUM).add_(gradient)
                value.sub_(gradient.add_(velocity, alpha=MOMENTUM), alpha=at)
            step += 1
        yield heads


def _partners(folds: Array, rng: np.random.Generator) -> Array:
    """(B,) for each row of a batch another one of its fold, by position, or itself: a permutation."""
    shuffled = rng.permutation(len(folds))
    result = np.empty(len(folds), np.int64)
    result[np.argsort(folds, kind="stable")] = shuffled[np.argsort(folds[shuffled], kind="stable")]
    return result


def _stable_rate(features: torch.Tensor, seed: int) -> float:
    """The rate, smaller where features hang together so much that it would overshoot along one direction."""
    direction = torch.from_numpy(np.random.default_rng(seed).normal(size=features.shape[1]).astype(np.float32))
    direction = direction.to(features.device)
    largest = 0.0
    for _ in range(POWER_STEPS):
        direction = features.T @ (features @ direction) / len(features)
        largest = float(direction.norm())
        if not largest:
            return RATE
        direction = direction / largest
    return min(RATE, STABLE / largest)
