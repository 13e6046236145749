"""The arithmetic of a DivideMix step (Li et al., ICLR 2020): targets, mixed batch and loss, as pure functions.

A step has B labelled images x with their P(clean) w, and B unlabelled ones u, two augmented views of each:

    target of x = sharpen(w y + (1 - w) mean of the network's predictions of the views)          [section 3.2]
    target of u = sharpen(mean of both networks' predictions of the views)                       [section 3.2]
    sharpen(p)_k = p_k^(1/T) / sum_j p_j^(1/T)                                                   [equation 6]
    mixed = l a + (1 - l) b, l = max(l', 1 - l'), l' ~ Beta(alpha, alpha), b a permutation of a  [equations 7 to 10]
    loss = Lx + lambda_u Lu + KL(uniform || mean prediction)                                     [equations 11 to 14]

where the paper leaves a choice open, its authors' code decides.

Letters: B rows, M rows of a mixed batch (4 B, or 2 B without unlabelled ones), K classes, V predictions of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F


def sharpen(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Raises each row to the power 1/T and normalises it [equation 6]: the smaller T, the nearer to one-hot.

    The largest entry is divided out first, so that no power of small numbers vanishes.

    Args:
        probabilities: (B, K), each row with an entry above 0.
        temperature: T > 0; 1 changes nothing but the sum.

    Returns:
        (B, K), rows sum to 1.
    """
    scaled = (probabilities / probabilities.amax(dim=1, keepdim=True)) ** (1 / temperature)
    return scaled / scaled.sum(dim=1, keepdim=True)


def co_refine(labels: torch.Tensor, clean: torch.Tensor, predictions: torch.Tensor, temperature: float) -> torch.Tensor:
    """Targets of labelled rows: the label as far as it is believed, else what the network itself says.

    Args:
        labels: (B,) int64 given labels.
        clean: (B,) w, P(label right) by the other network.
        predictions: (V, B, K) softmax outputs of the network that is trained, one a view.
        temperature: T.

    Returns:
        (B, K), rows sum to 1.
    """
    given = F.one_hot(labels, predictions.shape[2]).to(predictions)
    weight = clean.to(predictions)[:, None]
    return sharpen(weight * given + (1 - weight) * predictions.mean(dim=0), temperature)


def co_guess(predictions: torch.Tensor, temperature: float) -> torch.Tensor:
    """Targets of unlabelled rows: the sharpened mean of what both networks say of all views.

    Args:
        predictions: (V, B, K) softmax outputs; DivideMix has V = 4, two views by two networks.
        temperature: T.

    Returns:
        (B, K), rows sum to 1.
    """
    return sharpen(predictions.mean(dim=0), temperature)


class Mixing(NamedTuple):
    """One draw of MixMatch: l in [.5, 1] and the partner of each row, (M,) int64."""

    share: float
    partners: torch.Tensor


def draw_mixing(num_rows: int, alpha: float, generator: torch.Generator) -> Mixing:
    """Draws l and the partners of a batch; one l serves the whole batch, as in the authors' code.

    Args:
        num_rows: M, labelled and unlabelled rows together.
        alpha: of Beta(alpha, alpha).
        generator: a CPU generator, of both.
    """
    partners = torch.randperm(num_rows, generator=generator)
    # torch draws from a Beta distribution with its global generator only.
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = float(np.random.default_rng(seed).beta(alpha, alpha))
    return Mixing(max(drawn, 1 - drawn), partners)


def mix(values: torch.Tensor, mixing: Mixing, num_rows: int | None = None) -> torch.Tensor:
    """Mixes images or targets with their partners': l * values + (1 - l) * partners' values.

    Args:
        values: (M, ...).
        mixing: l and the partners.
        num_rows: rows that are mixed, the first ones; all where None. Partners come from all rows.

    Returns:
        (M, ...) or (num_rows, ...).
    """
    partners = mixing.partners[:num_rows].to(values.device)
    return torch.lerp(values.index_select(0, partners), values[:num_rows], mixing.share)


class MixMatchLoss(NamedTuple):
    """Parts of the loss, scalars: Lx >= 0, Lu in [0, 2 / K], penalty >= 0; the first and the last of them in nats."""

    labelled: torch.Tensor
    unlabelled: torch.Tensor
    penalty: torch.Tensor


def mixmatch_loss(logits: torch.Tensor, targets: torch.Tensor, num_labelled: int) -> MixMatchLoss:
    """Cross-entropy of labelled rows, squared error of unlabelled ones, and the prior's penalty.

    Lx is the mean over rows of -sum_k t_k log f_k, Lu the mean over rows and classes of (f_k - t_k)^2, the penalty is
    KL(uniform || mean of f over all rows): it keeps the network from giving all rows one class.

    Args:
        logits: (M, K) of the mixed images.
        targets: (M, K) mixed.
        num_labelled: rows of the labelled part, the first ones; Lu is 0 where they are all.
    """
    log_f = F.log_softmax(logits.float(), dim=1)
    f = log_f.exp()
    labelled = -(targets[:num_labelled] * log_f[:num_labelled]).sum(dim=1).mean()
    rest = f[num_labelled:] - targets[num_labelled:]
    unlabelled = rest.square().mean() if len(rest) else logits.new_zeros((), dtype=torch.float32)
    # log of the mean of f, from log f: a class that no row is given has a finite logarithm still.
    log_mean = torch.logsumexp(log_f, dim=0) - float(np.log(len(f)))
    penalty = -log_mean.mean() - float(np.log(logits.shape[1]))
    return MixMatchLoss(labelled, unlabelled, penalty)


def ramped(lambda_u: float, epochs_since: float, ramp: float) -> float:
    """The weight of Lu: it grows linearly from 0 to lambda_u over `ramp` epochs.

    Args:
        lambda_u: the full weight.
        epochs_since: epochs since there have been unlabelled rows, parts of an epoch included.
        ramp: epochs; 0 for the full weight at once. The authors' code has 16.
    """
    return lambda_u * (min(max(epochs_since / ramp, 0.0), 1.0) if ramp else 1.0)


def negative_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean of sum_k f_k log f_k, a scalar in [-log K, 0]: added to the warm-up's loss, it holds confidence down.

    The authors add it where noise is asymmetric, and on Clothing1M [section 3.1, equation 3].
    """
    log_f = F.log_softmax(logits.float(), dim=1)
    return (log_f.exp() * log_f).sum(dim=1).mean()
