"""A last layer alone, for features that are there: a row's features stand for an image of one pixel."""

from __future__ import annotations

from rayclean.late import nn, torch
from rayclean.train.models.network import Network


def linear_network(num_features: int, num_classes: int) -> Network:
    """(N, d, 1, 1) features to (N, K) logits, all 0 at first, as heads begin.

    Args:
        num_features: d.
        num_classes: K.
    """
    with torch.random.fork_rng(devices=[]):  # a new layer draws weights
        head = nn.Linear(num_features, num_classes)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    return Network(nn.Flatten(), head)
