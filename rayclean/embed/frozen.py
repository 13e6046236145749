"""A frozen network: images of any size to features, and all that these depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from rayclean.config.sections import DataSection, ModelSection
from rayclean.errors import ConfigError
from rayclean.late import torch
from rayclean.schema import Array
from rayclean.shards.decode import INTERPOLATIONS, Interpolation, Pixels, fit_image
from rayclean.train import models
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.models import is_published, weights_images
from rayclean.train.models.weights import read_state
from rayclean.train.spec import NetworkSpec

VERSION = 1
PUBLISHED = "DEFAULT"  # the weights that a library has for a network; timm: those of the name's tag


@dataclass(frozen=True)
class FrozenSettings:
    """All that features depend on, and how the network is run.

    Attributes:
        name: as `model.name`.
        weights: a file, or a name of the library's weights.
        digest: SHA-256 of the weights, as `weights_digest` gives it.
        size: side of the square that the network sees, in pixels.
        crop: share of an image's short side that this square has, above 0; 1.0 for all of it.
        interpolation: how it is resized, one of `INTERPOLATIONS`.
        mean: subtracted from each channel of images in [0, 1].
        std: what each channel is divided by then.
        device: for torch; features of two kinds of devices differ in their last bits.
        precision: `float32` or `bfloat16`.
        batch_size: images that the network sees at once, always as many.
        width: of `small_resnet`.
    """

    name: str
    weights: str
    digest: str
    size: int
    crop: float
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: str
    precision: str
    batch_size: int
    width: int

    def fields(self) -> dict[str, Any]:
        """What a fingerprint of the features holds: all but the device, and not where the weights came from."""
        told_by_digest = ("weights", "width")
        found = {name: value for name, value in asdict(self).items() if name not in ("device", *told_by_digest)}
        return {**found, "mean": list(self.mean), "std": list(self.std), "version": VERSION}


def frozen_settings(
    model: ModelSection, data: DataSection, device: str, precision: str, batch_size: int
) -> FrozenSettings:
    """The settings of the network that a config names. Loads its weights, for their digest.

    `model.size`, `data.size`, `data.mean` and `data.std` win over what the weights are evaluated on.

    Args:
        model: its `weights` may be None where a library has some.
        data: how its images are normalised, where not as the network's.
        device: of the network, for torch.
        precision: resolved, not `auto`.
        batch_size: of its forwards.

    Raises:
        ConfigError: weights are named nowhere or cannot be had, or there is no such network.
    """
    if model.weights is None and not is_published(model.name):
        raise ConfigError(
            f"model.frozen: {model.name} has no weights of its own; set model.weights to a file with its state dict, "
            "or model.name to lite, a network of torchvision or timm:NAME"
        )
    weights = model.weights or PUBLISHED
    images = weights_images(model.name, weights)
    if images.interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"model.name {model.name}: its images are resized by {images.interpolation!r}, known are "
            f"{', '.join(INTERPOLATIONS)}; take another network"
        )
    size = model.size or data.size or images.size
    return FrozenSettings(
        name=model.name,
        weights=weights,
        digest=weights_digest(_build(model.name, weights, model.width, size)),
        size=size,
        crop=images.crop,
        interpolation=cast(Interpolation, images.interpolation),
        mean=data.mean or images.mean,
        std=data.std or images.std,
        device=device,
        precision=precision,
        batch_size=batch_size,
        width=model.width,
    )


def weights_digest(network: models.Network) -> str:
    """SHA-256, in hex, of the weights that features come from: names, types, shapes and bytes, by name."""
    found = hashlib.sha256()
    for name, value in sorted(network.body.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


class FrozenNetwork:
    """A network in evaluation mode, whose classifier is never run.

    Args:
        settings: see there.

    Attributes:
        dim: d, the number of features.

    Raises:
        ConfigError: the weights cannot be had here, or are not those that the settings were made with.
    """

    def __init__(self, settings: FrozenSettings) -> None:
        network = _build(settings.name, settings.weights, settings.width, settings.size)
        if (found := weights_digest(network)) != settings.digest:
            raise ConfigError(
                f"model.weights {settings.weights} of {settings.name}: found weights {found[:8]}, expected "
                f"{settings.digest[:8]}; give all nodes the same file and set model.weights to it"
            )
        spec = NetworkSpec(
            settings.name,
            network.num_classes,
            settings.width,
            None,
            settings.size,
            settings.mean,
            settings.std,
        )
        how = ForwardSettings(settings.device, settings.precision, settings.batch_size)
        self.settings, self.dim = settings, network.feature_dim
        self._forward = Forward(network, spec, how)

    def features(self, images: Sequence[Pixels]) -> Array:
        """Features of decoded images; those of one are the same bytes whatever others come with it.

        Of an image that is not square the centre is seen.

        Args:
            images: (height, width, 3) uint8 each, RGB, of any size.

        Returns:
            (n, dim) float32.
        """
        how = self.settings
        found = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), how.batch_size):
            batch = images[start : start + how.batch_size]
            squares = np.stack([fit_image(image, how.size, how.crop, how.interpolation) for image in batch])
            inputs = self._forward.normalized(squares)
            found[start : start + len(batch)] = self._forward.features(inputs).cpu().numpy()
        return found


def _build(name: str, weights: str, width: int, size: int) -> models.Network:
    """The network with its weights; where these are a snapshot or a user's, it gets as many classes as they have."""
    num_classes = 1
    if not is_published(name):
        head = read_state(weights).get("head.weight")
        num_classes = num_classes if head is None else len(head)
    return models.build_model(name, num_classes, width=width, weights=weights, image_size=size)
