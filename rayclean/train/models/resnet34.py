"""ResNet-34 for images of 32 pixels, as Influential Rank and the baseline of CIFAR-N train it.

He et al. (CVPR 2016) with the stem that public code for CIFAR has: a 3x3 convolution of stride 1 and no max pooling,
so that the maps start at the images' own size. torchvision's `resnet34` is the one for 224 pixels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rayclean.train.models.layers import conv3x3, global_mean_pool
from rayclean.train.models.small_resnet import BasicBlock

STAGES = ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3))  # channels, stride and number of blocks
FEATURE_DIM = 512


class SmallImageResNet34(nn.Module):
    """Stem of 64 channels, 16 basic blocks, global mean: d = 512, 21.3 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        in_channels = STAGES[0][0]
        self.stem = conv3x3(3, in_channels)
        self.bn = nn.BatchNorm2d(in_channels)
        blocks = []
        for channels, stride, num_blocks in STAGES:
            for index in range(num_blocks):
                blocks.append(BasicBlock(in_channels, channels, stride if index == 0 else 1))
                in_channels = channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, 512) features, none negative."""
        return global_mean_pool(self.blocks(F.relu(self.bn(self.stem(images)))))
