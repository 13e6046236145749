"""The shape that every network here has: a body, perhaps a bottleneck, and one linear layer at the end.

Scores need the last layer apart: its input is the space of the neighbours, its weights are all that influence
functions differentiate.
"""

from __future__ import annotations

import torch
from torch import nn


class Network(nn.Module):
    """Images to logits, with the features in between.

    What follows the body runs in the head's dtype and outside autocast: float32 under a bfloat16 body, float64
    after `network.double()`. With the 8 significant bits of bfloat16 the scores of memorised rows would tie.

    Args:
        body: (N, 3, H, W) images to (N, body_dim) features.
        head: the last layer.
        bottleneck: what lies between body and head [IR, appendix B.2]; None for nothing.

    Attributes:
        feature_dim: d, the size of the head's input.
        num_classes: K.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, bottleneck: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.bottleneck = nn.Identity() if bottleneck is None else bottleneck
        self.head = head
        self.feature_dim = head.in_features
        self.num_classes = head.out_features

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Penultimate features (N, d) of (N, 3, H, W) normalised images, in the head's dtype."""
        features: torch.Tensor = self.body(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.bottleneck(features.to(self.head.weight.dtype))  # type: ignore[no-any-return]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of (N, d) features, in the head's dtype."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(self.head.weight.dtype))  # type: ignore[no-any-return]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of (N, 3, H, W) normalised images."""
        return self.logits(self.features(images))
