"""From uint8 images to a network's input, and what is done to them on the way while training.

The order is `augment_uint8`, `normalize`, `augment_float`: colour and shape operations of AutoAugment are defined
on bytes, while the crop pads with zeros after normalising, so with the mean colour. Scoring only normalises.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from rayclean.errors import ConfigError
from rayclean.train.models.torchvision_models import autoaugment_cifar10

AUGMENT_NAMES = ("none", "crop_flip", "autoaugment")


def normalize(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(image / 255 - mean) / std for each channel.

    Args:
        images: (N, H, W, 3) uint8; not changed.
        mean: of each channel, on the scale [0, 1].
        std: of each channel, on the scale [0, 1].

    Returns:
        (N, 3, H, W) float32 on the same device, in channels_last memory: the bytes are not moved again.
    """
    scaled = images.to(torch.float32).div_(255)
    scaled.sub_(scaled.new_tensor(mean)).div_(scaled.new_tensor(std))
    return scaled.permute(0, 3, 1, 2)


def augment_uint8(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """The part of an augmentation that comes before `normalize`.

    Args:
        images: (N, H, W, 3) uint8; not changed.
        kind: one of `AUGMENT_NAMES`.
        generator: of all draws.

    Returns:
        (N, H, W, 3) uint8.

    Raises:
        ConfigError: there is no such augmentation, or torchvision is missing.
    """
    _check_kind(kind)
    return autoaugment_cifar10(images, generator) if kind == "autoaugment" else images


def augment_float(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """The part of an augmentation that comes after `normalize`: crop and flip, for `autoaugment` too [IR].

    Args:
        images: (N, 3, H, W) float; not changed.
        kind: one of `AUGMENT_NAMES`.
        generator: of all draws.

    Returns:
        (N, 3, H, W) of the same dtype.

    Raises:
        ConfigError: there is no such augmentation.
    """
    _check_kind(kind)
    if kind == "none":
        return images
    padding = images.shape[2] // 8  # 4 of 32 pixels, as the papers
    top, left, flipped = draw_crop_flip(len(images), padding, generator)
    return crop_flip(images, padding, top, left, flipped)


def draw_crop_flip(
    num_images: int, padding: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws where each image is cropped, top and left in [0, 2 * padding], and whether it is flipped; each (N,)."""
    device = generator.device
    offsets = torch.randint(2 * padding + 1, (2, num_images), generator=generator, device=device)
    flipped = torch.randint(2, (num_images,), generator=generator, device=device).bool()
    return offsets[0], offsets[1], flipped


def crop_flip(
    images: torch.Tensor, padding: int, top: torch.Tensor, left: torch.Tensor, flipped: torch.Tensor
) -> torch.Tensor:
    """Cuts an H x W window out of each zero-padded image and mirrors it left to right where told.

    Args:
        images: (N, C, H, W).
        padding: zeros on each side.
        top: (N,) first row of the window in the padded image.
        left: (N,) its first column.
        flipped: (N,) bool.

    Returns:
        (N, C, H, W) in channels_last memory.
    """
    num_images, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    rows = top.to(device)[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = left.to(device)[:, None] + torch.where(flipped.to(device)[:, None], width - 1 - columns, columns)
    # One gather of whole pixels: position of each in the list of all padded pixels.
    first_row = torch.arange(num_images, device=device)[:, None] * padded.shape[1]
    pixels = (first_row + rows)[:, :, None] * padded.shape[2] + columns[:, None, :]
    chosen = padded.reshape(-1, channels).index_select(0, pixels.reshape(-1))
    return chosen.reshape(num_images, height, width, channels).permute(0, 3, 1, 2)


def _check_kind(kind: str) -> None:
    if kind not in AUGMENT_NAMES:
        raise ConfigError(f"train.augment: unknown name '{kind}'; valid: {', '.join(AUGMENT_NAMES)}")
