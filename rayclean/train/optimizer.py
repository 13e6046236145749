"""What moves the weights: SGD or AdamW, and the rate at each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rayclean.config import TrainSection
from rayclean.late import torch

if TYPE_CHECKING:
    from rayclean.train.models import Network

ADAMW_BETA2 = 0.999  # of the running mean of squared gradients, torch's default


def make_optimizer(network: Network, train: TrainSection, nesterov: bool = True) -> torch.optim.Optimizer:
    """The optimizer of a network on its device, before its first step.

    `sgd`: the decay is added to the gradient. `adamw`: the weights decay by rate times decay beside the step
    (Loshchilov and Hutter, ICLR 2019), biases and normalisation included, and `momentum` is beta 1.

    Args:
        network: whose weights are moved.
        train: optimizer, momentum and decay, and the rate of the first step.
        nesterov: whether SGD looks ahead, where it has momentum at all; AdamW never does.
    """
    if train.optimizer == "adamw":
        betas = (train.momentum, ADAMW_BETA2)
        return torch.optim.AdamW(network.parameters(), lr=train.lr, betas=betas, weight_decay=train.weight_decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        nesterov=nesterov and train.momentum > 0,
    )


def learning_rate(settings: TrainSection, progress: float) -> float:
    """The rate at a share of the whole training in [0, 1).

    With `step` the first step after milestone m, at share m / E, is the first one at the next rate: m / E is divided
    out here as its caller does, so that no rounding moves it.
    """
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        passed = sum(progress >= milestone / settings.epochs for milestone in settings.milestones)
        return float(settings.lr * settings.decay**passed)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
