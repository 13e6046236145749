"""The batches of heads and the gradients of their losses at the logits, written out: they have no autograd.

Letters: N rows, K classes, H heads, B rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array


@dataclass(frozen=True)
class Batch:
    """What all heads see in a step.

    Attributes:
        inputs: (B, d) float32, mixed where the loss is MixUp's.
        folds: (B,) int64.
        target: (K, B) float32: what each class has of a row, times the row's weight.
        amount: (B,) float32, the rows' weights; None where all are 1.
    """

    inputs: torch.Tensor
    folds: torch.Tensor
    target: torch.Tensor
    amount: torch.Tensor | None


def mixed_batch(
    inputs: torch.Tensor,
    folds: Array,
    targets: Array,
    weights: Array | None,
    num_classes: int,
    alpha: float,
    rng: np.random.Generator,
) -> Batch:
    """The batch of some rows, each mixed with a partner of its fold.

    Args:
        inputs: (B, d) features.
        folds: (B,) integers.
        targets: (B,) integers 0..K-1, or (B, K).
        weights: (B,) of the rows' losses, or None.
        num_classes: K.
        alpha: of MixUp's beta distribution; 0 leaves all rows as they are.
        rng: of the share and of the partners.
    """
    device, inputs = inputs.device, inputs.float()
    if targets.ndim == 1:
        given = torch.from_numpy(targets.astype(np.int64)).to(device)
        target = torch.zeros(len(targets), num_classes, device=device).scatter_(1, given[:, None], 1)
    else:
        target = torch.from_numpy(targets.astype(np.float32)).to(device)
    amount = None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device)
    if amount is not None:
        # Before mixing, so that each half of a mixed row counts by its own row's weight.
        target = target * amount[:, None]
    if alpha:
        share = rng.beta(alpha, alpha)
        other = torch.from_numpy(partners(folds, rng)).to(device)
        inputs = share * inputs + (1 - share) * inputs[other]
        target = share * target + (1 - share) * target[other]
        amount = None if amount is None else share * amount + (1 - share) * amount[other]
    return Batch(inputs, torch.from_numpy(folds.astype(np.int64)).to(device), target.T.contiguous(), amount)


def partners(folds: Array, rng: np.random.Generator) -> Array:
    """(B,) for each row of a batch another one of its fold, by position, or itself: a permutation."""
    shuffled = rng.permutation(len(folds))
    result = np.empty(len(folds), np.int64)
    # The i-th row of a fold gets the i-th of the same fold in a random order.
    result[np.argsort(folds, kind="stable")] = shuffled[np.argsort(folds[shuffled], kind="stable")]
    return result


def logit_gradient(loss: str, logits: torch.Tensor, target: torch.Tensor, amount: torch.Tensor | None) -> torch.Tensor:
    """The gradient of each row's loss at its logits: weight * f - target.

    With negative entropy, sum_j f_j log f_j, it has weight * f * (log f - sum_j f_j log f_j) more.

    Args:
        loss: one of `LOSS_NAMES`; MixUp is cross-entropy with mixed targets.
        logits: (H, K, B).
        target: (K, B), of `Batch`.
        amount: (B,) or None, of `Batch`.

    Returns:
        (H, K, B).
    """
    found = beliefs = torch.softmax(logits, dim=1)
    if loss == "ce+ne":
        logs = torch.log_softmax(logits, dim=1)
        found = beliefs + beliefs * (logs - (beliefs * logs).sum(dim=1, keepdim=True))
    if amount is not None:
        found = found * amount
    return found - target
