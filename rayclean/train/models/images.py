"""What images a network is made for."""

from __future__ import annotations

from dataclasses import dataclass

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Images:
    """The images that a network's weights are evaluated on.

    Attributes:
        size: side of the square that the network sees, in pixels.
        mean: subtracted from each channel of images in [0, 1].
        std: what each channel is divided by then.
        crop: share of the short side that the central square has; 1.0 for all of it.
        interpolation: how the square is resized, as PIL calls it in lower case.
    """

    size: int
    mean: Channels
    std: Channels
    crop: float = 1.0
    interpolation: str = "bilinear"
