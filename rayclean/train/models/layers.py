"""Layers that the small networks share."""

from __future__ import annotations

import torch
from torch import nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 and no bias: a BatchNorm follows or cancels it."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    """A projection of the shortcut, without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def global_mean_pool(maps: torch.Tensor) -> torch.Tensor:
    """Means (N, C) over the positions of (N, C, H, W) maps.

    float32 also from bfloat16 maps: rounding the mean would coarsen the distances between features.
    """
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))
