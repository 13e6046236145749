"""From uint8 images to a network's input, and what is done to them on the way while training.

The order is `augment_uint8`, `normalize`, `augment_float`: colour and shape operations of AutoAugment are defined
on bytes, while the crop pads with zeros after normalising, so with the mean colour. Scoring only normalises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rayclean.config.train_section import AUGMENT_NAMES
from rayclean.errors import ConfigError
from rayclean.late import functional as F
from rayclean.late import torch
from rayclean.train.models.torchvision_models import autoaugment_cifar10

# Torchvision's defaults of RandomResizedCrop: a box's share of the image, its width / height, tries for one that fits.
CROP_SHARE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10


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
        images: (N, 3, S, S) float; not changed.
        kind: one of `AUGMENT_NAMES`.
        generator: of all draws.

    Returns:
        (N, 3, S, S) of the same dtype.

    Raises:
        ConfigError: there is no such augmentation.
    """
    _check_kind(kind)
    if kind == "none":
        return images
    if kind == "random_resized_crop":
        boxes = draw_boxes(len(images), images.shape[2], generator)
        return resized_crop_flip(images, boxes, _draw_flips(len(images), generator))
    padding = images.shape[2] // 8  # 4 of 32 pixels, as the papers
    top, left, flipped = draw_crop_flip(len(images), padding, generator)
    return crop_flip(images, padding, top, left, flipped)


def draw_crop_flip(
    num_images: int, padding: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws where each image is cropped, top and left in [0, 2 * padding], and whether it is flipped; each (N,)."""
    device = generator.device
    offsets = torch.randint(2 * padding + 1, (2, num_images), generator=generator, device=device)
    return offsets[0], offsets[1], _draw_flips(num_images, generator)


def _draw_flips(num_images: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(2, (num_images,), generator=generator, device=generator.device).bool()


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


def draw_boxes(num_images: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draws a box in each image, as torchvision's RandomResizedCrop does (Szegedy et al., CVPR 2015).

    Its share of the image is uniform in CROP_SHARE, the logarithm of width / height in that of CROP_RATIO, the place
    among all that fit. The first of CROP_TRIES boxes that fits is taken; where none does, the largest one in the
    centre, in a square image all of it. All tries are drawn, so that the draws that follow do not depend on them.

    Args:
        num_images: N.
        size: S, of images that are (S, S).
        generator: of all draws.

    Returns:
        (N, 4) int64: top, left, height, width.
    """
    device = generator.device
    share, ratio = torch.rand((2, CROP_TRIES, num_images), generator=generator, dtype=torch.float64, device=device)
    place = torch.rand((2, num_images), generator=generator, dtype=torch.float64, device=device)
    area = size**2 * (CROP_SHARE[0] + share * (CROP_SHARE[1] - CROP_SHARE[0]))
    low, high = (math.log(bound) for bound in CROP_RATIO)
    aspect = torch.exp(low + ratio * (high - low))
    sides = torch.stack([torch.sqrt(area / aspect), torch.sqrt(area * aspect)]).round().long()
    fits = ((sides > 0) & (sides <= size)).all(dim=0)
    first = fits.int().argmax(dim=0).expand(2, 1, num_images)
    chosen = torch.where(fits.any(dim=0), sides.gather(1, first)[:, 0], size)
    corner = (place * (size - chosen + 1)).floor().long()
    return torch.cat([corner, chosen]).T


def resized_crop_flip(images: torch.Tensor, boxes: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Cuts a box out of each image, resizes it to the whole image's size and mirrors it left to right where told.

    Bilinear, pixels' centres at halves, nothing beyond the box is looked at. A box is never larger than the image, so
    that torchvision's antialiasing, which is for smaller results, would change nothing.

    Args:
        images: (N, C, H, W) float.
        boxes: (N, 4) top, left, height, width.
        flipped: (N,) bool.

    Returns:
        (N, C, H, W) in the images' memory format.
    """
    out = torch.empty_like(images)
    for i, ((top, left, height, width), is_flipped) in enumerate(zip(boxes.tolist(), flipped.tolist(), strict=True)):
        box = images[i : i + 1, :, top : top + height, left : left + width]
        resized = F.interpolate(box, images.shape[2:], mode="bilinear", align_corners=False)[0]
        out[i] = resized.flip(2) if is_flipped else resized
    return out


def _check_kind(kind: str) -> None:
    if kind not in AUGMENT_NAMES:
        raise ConfigError(f"train.augment: unknown name '{kind}'; valid: {', '.join(AUGMENT_NAMES)}")
