"""WideResNet-28-2 (Zagoruyko & Komodakis, BMVC 2016), without dropout."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rayclean.train.models.layers import Projection, conv3x3, global_mean_pool

STEM_CHANNELS = 16
GROUPS = ((32, 1), (64, 2), (128, 2))  # channels and stride: 16, 32, 64, each twice as wide
BLOCKS_PER_GROUP = 4  # (28 - 4) / 6
FEATURE_DIM = 128


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions.

    Where the shape changes the shortcut is a projection of the activated input, else the input itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.projection: nn.Conv2d | None = None
        if stride != 1 or in_channels != channels:
            self.projection = Projection(in_channels, channels, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        active = F.relu(self.bn1(maps))
        shortcut = maps if self.projection is None else self.projection(active)
        out = self.conv1(active)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut  # type: ignore[no-any-return]


class WideResNet28x2(nn.Module):
    """Stem of 16 channels, three groups of four blocks, BatchNorm and ReLU, global mean: d = 128."""

    def __init__(self) -> None:
        super().__init__()
        in_channels = STEM_CHANNELS
        self.stem = conv3x3(3, in_channels)
        blocks = []
        for channels, stride in GROUPS:
            for index in range(BLOCKS_PER_GROUP):
                blocks.append(WideBlock(in_channels, channels, stride if index == 0 else 1))
                in_channels = channels
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(in_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, 128) features, none negative."""
        return global_mean_pool(F.relu(self.bn(self.blocks(self.stem(images)))))
