"""Training losses: cross-entropy, MixUp, and cross-entropy with negative entropy.

Letters: N images, K classes. `generator` is a CPU generator, so that CPU and GPU see the same draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rayclean.errors import ConfigError
from rayclean.late import functional as F
from rayclean.late import torch

LOSS_NAMES = ("mixup", "ce", "ce+ne")


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of -log f_y over the batch, a scalar >= 0.

    Args:
        logits: (N, K).
        labels: (N,) int64; or (N, K), soft: -sum_k t_k log f_k.
        weights: (N,) of the samples' losses; the sum is still divided by N, so that few sure samples in a batch make
            a small step. None where all count alike.
    """
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def mixup(
    images: torch.Tensor, labels: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Mixes each image with a random partner of the batch (Zhang et al., ICLR 2018, equation 1).

    One lambda ~ Beta(alpha, alpha) serves the whole batch, as in the authors' code.

    Args:
        images: (N, 3, H, W) normalised.
        labels: (N,) int64.
        alpha: > 0.
        generator: of the partners and of lambda.

    Returns:
        mixed (N, 3, H, W) = lambda * images + (1 - lambda) * partners; labels; the partners' labels; lambda.
    """
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    # torch draws from a Beta distribution with its global generator only.
    seed = int(torch.randint(2**62, (), generator=generator))
    lam = float(np.random.default_rng(seed).beta(alpha, alpha))
    mixed = lam * images + (1 - lam) * images[partner]
    return mixed, labels, labels[partner], lam


def mixup_loss(
    logits: torch.Tensor,
    labels_a: torch.Tensor,
    labels_b: torch.Tensor,
    lam: float,
    weights_a: torch.Tensor | None = None,
    weights_b: torch.Tensor | None = None,
) -> torch.Tensor:
    """MixUp's loss, a scalar: lambda * CE(logits, labels_a) + (1 - lambda) * CE(logits, labels_b).

    With weights, each image's share of a mixed sample counts by that image's weight.
    """
    return lam * cross_entropy(logits, labels_a, weights_a) + (1 - lam) * cross_entropy(logits, labels_b, weights_b)


def ce_negative_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CE - H(f), a scalar >= -log K: pushes the network away from confident output [INN].

    Args:
        logits: (N, K).
        labels: (N,) int64.
    """
    log_f = F.log_softmax(logits, dim=1)
    negative_entropy = (log_f.exp() * log_f).sum(dim=1).mean()
    return F.nll_loss(log_f, labels) + negative_entropy


def training_loss(
    kind: str,
    model: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    generator: torch.Generator,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of one batch, a scalar to differentiate.

    Args:
        kind: one of `LOSS_NAMES`.
        model: (N, 3, H, W) images to (N, K) logits.
        images: (N, 3, H, W) normalised.
        labels: (N,) int64, or for `mixup` and `ce` (N, K) soft ones, on the images' device.
        alpha: of MixUp.
        generator: of MixUp's draws.
        weights: (N,) of the samples' losses, for `mixup` and `ce`; None where all count alike.

    Raises:
        ConfigError: there is no such loss, or it takes no weights or no soft labels.
    """
    if kind == "mixup":
        mixed, own, partners, lam = mixup(images, torch.arange(len(labels), device=labels.device), alpha, generator)
        logits = model(mixed)
        of_partners = None if weights is None else weights[partners]
        return mixup_loss(logits, labels[own], labels[partners], lam, weights, of_partners)
    if kind == "ce":
        return cross_entropy(model(images), labels, weights)
    if kind == "ce+ne" and (weights is not None or labels.dim() > 1):
        raise ConfigError("train.loss ce+ne takes no weights of samples and no soft labels; use ce or mixup")
    if kind == "ce+ne":
        return ce_negative_entropy(model(images), labels)
    raise ConfigError(f"train.loss: unknown name '{kind}'; valid: {', '.join(LOSS_NAMES)}")
