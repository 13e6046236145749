"""PreActResNet18 as DivideMix (ICLR 2020) has it, and after it INN and IOFM.

Its maps are pooled without a last BatchNorm and ReLU, and every shortcut, not only a projecting one, starts from
the activated input; He et al. (ECCV 2016) do neither.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rayclean.train.models.layers import Projection, conv3x3, global_mean_pool

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride of each pair of blocks
FEATURE_DIM = 512


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; the shortcut branches off after the first ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = Projection(in_channels, channels, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        active = F.relu(self.bn1(maps))
        out = self.conv1(active)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(active)  # type: ignore[no-any-return]


class PreActResNet18(nn.Module):
    """Stem of 64 channels, four pairs of blocks, global mean: d = 512, 11.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        in_channels = STAGES[0][0]
        self.stem = conv3x3(3, in_channels)
        self.bn = nn.BatchNorm2d(in_channels)
        blocks = []
        for channels, stride in STAGES:
            blocks += [PreActBlock(in_channels, channels, stride), PreActBlock(channels, channels, stride=1)]
            in_channels = channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, 512) features, of both signs."""
        return global_mean_pool(self.blocks(F.relu(self.bn(self.stem(images)))))
