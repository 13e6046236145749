"""Layers that the small networks share, and what is known of those of others."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

SAFE_CHANNELS = 16  # inputs of a strided 1x1 convolution from which oneDNN's backward pass keeps to its buffer


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 and no bias: a BatchNorm follows or cancels it."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


class Projection(nn.Conv2d):
    """A 1x1 convolution of a shortcut, without bias.

    One that skips pixels, of fewer than `SAFE_CHANNELS` channels, is a plain one on the pixels that are left: the same
    up to rounding, without oneDNN's fault. Wider ones are torch's own, bit for bit as ever, and need no copy.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if not _is_at_fault(self):
            return super().forward(maps)
        down, right = self.stride
        return F.conv2d(maps[:, :, ::down, ::right], self.weight)


def convolutions_at_fault(network: nn.Module) -> list[str]:
    """Convolutions whose backward pass on a CPU may write beside its memory, by their names in the network.

    Those of `Projection` go another way. Other people's networks are not changed: who trains one should know.
    """
    found = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    return [name for name, module in found if not isinstance(module, Projection) and _is_at_fault(module)]


def _is_at_fault(conv: nn.Conv2d) -> bool:
    """The backward pass in oneDNN of a strided 1x1 convolution rounds fewer than 16 channels up to a register's 16.

    With AVX-512, channels last and two threads or more it then writes past its buffer, and the process dies, at once
    or later. Not for other kernels, nor in groups.
    """
    return conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.groups == 1 and conv.in_channels < SAFE_CHANNELS


def global_mean_pool(maps: torch.Tensor) -> torch.Tensor:
    """Means (N, C) over the positions of (N, C, H, W) maps.

    float32 also from bfloat16 maps: rounding the mean would coarsen the distances between features.
    """
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))
