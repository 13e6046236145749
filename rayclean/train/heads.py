"""Classifiers on features that are there: several at once, each blind to a fold of the rows [our choice].

A head that has not seen a row's label says something of that label. So for each weight decay there are F heads that are
each blind to one fold, and one that sees all rows. `head_loop` trains them.

Letters: N rows, d features, K classes, F folds, H heads in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from rayclean.errors import ConfigError
from rayclean.late import torch
from rayclean.schema import Array
from rayclean.train.head import Head
from rayclean.train.head_layers import KINDS, STRENGTH, Layers, Tensors, single_thread
from rayclean.train.losses import LOSS_NAMES
from rayclean.train.plan import epoch_seed

LEAST_STEPS, MOST_STEPS = 240, 2400
ROWS_AT_ONCE = 4096
RATE = 0.02
RATE_ROWS = 20_000
POWER_STEPS = 20
STABLE = 2.0  # the rate times the largest eigenvalue of the features' second moments stays below


@dataclass(frozen=True)
class HeadSettings:
    """How heads learn.

    Attributes:
        weight_decays: each has heads of its own; small ones follow the labels, large ones resist strong noise.
        folds: F, at least 2.
        epochs: more where there are so few rows that these would be under `LEAST_STEPS` steps, fewer past `MOST_STEPS`.
        alpha: of MixUp's beta distribution; 0 without.
        loss: one of `LOSS_NAMES`.
        head: `linear`, or `hidden` for one hidden layer before it, which learns its labels by heart if it may.
    """

    weight_decays: tuple[float, ...] = (0.03, 0.3, 1.0)
    folds: int = 5
    epochs: int = 12
    batch_size: int = 256
    alpha: float = 1.0
    loss: str = "mixup"
    head: Literal["linear", "hidden"] = "linear"

    def __post_init__(self) -> None:
        """Refuses names that there are not."""
        for what, name, valid in (("loss", self.loss, LOSS_NAMES), ("head", self.head, tuple(KINDS))):
            if name not in valid:
                raise ConfigError(f"{what} of the heads: unknown name '{name}'; valid: {', '.join(valid)}")

    @property
    def num_heads(self) -> int:
        """H, the number of heads."""
        return len(self.weight_decays) * (self.folds + 1)

    @property
    def layers(self) -> Layers:
        """What a head is made of."""
        return KINDS[self.head]

    def epochs_of(self, num_rows: int) -> int:
        """Epochs over so many rows."""
        steps = self.steps_of(num_rows)
        return max(min(self.epochs, MOST_STEPS // steps), -(-LEAST_STEPS // steps))

    def steps_of(self, num_rows: int) -> int:
        """Steps per epoch; at least 1."""
        return max(-(-num_rows // self.batch_size), 1)


@dataclass
class Heads:
    """Heads after an epoch.

    Attributes:
        tensors: float32, with the heads along the first axis; `head_layers` has names and shapes.
        folds: (N,) int64, the fold of each row.
    """

    tensors: Tensors
    folds: Array
    settings: HeadSettings

    def blind_logits(self, features: torch.Tensor, decay: int, folds: Array | None = None) -> Array:
        """(R, K) float32 logits of rows, each by the head of that weight decay that has not seen its label.

        Args:
            features: (R, d) of these rows, on the heads' device.
            decay: position in `weight_decays`.
            folds: (R,) of these rows; None where they are all.
        """
        folds = self.folds if folds is None else folds
        found = np.empty((len(features), self.tensors["bias"].shape[1]), np.float32)
        for fold in range(self.settings.folds):
            rows = np.flatnonzero(folds == fold)
            found[rows] = self.logits(features, rows, self.blind_to(fold, decay))
        return found

    def seeing_logits(self, features: torch.Tensor, decay: int) -> Array:
        """(R, K) float32 logits of any rows by the head of that weight decay that has seen all labels."""
        return self.logits(features, np.arange(len(features)), self.seeing(decay))

    def seeing(self, decay: int) -> int:
        """The head of a weight decay that has seen all labels."""
        return decay * (self.settings.folds + 1) + self.settings.folds

    def blind_to(self, fold: int, decay: int) -> int:
        """The head of a weight decay that has not seen a fold."""
        return decay * (self.settings.folds + 1) + fold

    def head(self, index: int) -> Head:
        """One of them; its weights go on changing with those of all."""
        return Head({name: tensor[index] for name, tensor in self.tensors.items()})

    def logits(self, features: torch.Tensor, rows: Array, head: int) -> Array:
        """(R, K) float32 logits of some rows of features by one head."""
        one = {name: tensor[head : head + 1] for name, tensor in self.tensors.items()}
        found = np.empty((len(rows), self.tensors["bias"].shape[1]), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            inputs = features[torch.from_numpy(rows[start : start + ROWS_AT_ONCE]).to(features.device)]
            found[start : start + len(inputs)] = self.settings.layers.logits(one, inputs)[0][0].T.cpu().numpy()
        return found


def mean_belief(logits: Sequence[Array]) -> Array:
    """(R, K) float64 mean, over heads, of the logarithms of their beliefs by logits (R, K)."""
    found: Array = np.mean([scipy.special.log_softmax(each.astype(np.float64), axis=1) for each in logits], axis=0)
    return found


def standardized(features: Array) -> Array:
    """Features (N, d) float32 with mean 0 and equal deviations, of squared length `STRENGTH` on average.

    The recipe of a head then holds for any number of features. Constant columns become 0.
    """
    values = np.asarray(features, np.float32)
    mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    # Relative to the mean: the deviation of a constant column is rounding, and need not be 0.
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-30)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0) * np.sqrt(STRENGTH / max(int(varies.sum()), 1))
    result: Array = ((values - mean.astype(np.float32)) * scale.astype(np.float32)).astype(np.float32)
    return result


def rate_rows(num_rows: int, seed: int) -> Array:
    """(R,) int64 rows, ascending, by which `stable_rate` judges: all of them, or so many drawn ones."""
    if num_rows <= RATE_ROWS:
        return np.arange(num_rows)
    rng = np.random.default_rng(epoch_seed(seed, 0, 0, "heads.rate"))
    return np.sort(rng.choice(num_rows, RATE_ROWS, replace=False))


def stable_rate(features: torch.Tensor, seed: int) -> float:
    """The rate, smaller where features are so correlated that it would overshoot along one direction.

    Args:
        features: (R, d) of `rate_rows`.
        seed: of the direction that the search starts from.
    """
    with single_thread():
        largest = _largest_moment(features, seed)
    return min(RATE, STABLE / largest) if largest else RATE


def _largest_moment(features: torch.Tensor, seed: int) -> float:
    direction = torch.from_numpy(np.random.default_rng(seed).normal(size=features.shape[1]).astype(np.float32))
    direction = direction.to(features.device)
    largest = 0.0
    # Power iteration: d numbers in place of a (d, d) matrix of moments.
    for _ in range(POWER_STEPS):
        direction = features.T @ (features @ direction) / len(features)
        largest = float(direction.norm())
        if not largest:
            break
        direction = direction / largest
    return largest
