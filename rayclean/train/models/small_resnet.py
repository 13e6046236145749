"""The network that the measurements of docs/methods.md, section 7, were made with; a choice of ours."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rayclean.train.models.layers import Projection, conv3x3, global_mean_pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a shortcut; ReLU after the sum (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            projection = Projection(in_channels, channels, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(maps))


class SmallResNet(nn.Module):
    """Stem of w channels, three blocks (w, 2w, 4w; strides 1, 2, 2), global mean: d = 4w.

    Args:
        width: w.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = conv3x3(3, width)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            BasicBlock(width, width, stride=1),
            BasicBlock(width, 2 * width, stride=2),
            BasicBlock(2 * width, 4 * width, stride=2),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, 4w) features."""
        return global_mean_pool(self.blocks(F.relu(self.bn(self.stem(images)))))
