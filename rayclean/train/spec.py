"""What a network is: all that is needed to build it and to feed it."""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config import MAIN, Config
from rayclean.late import torch
from rayclean.train import models
from rayclean.train.augment import normalize

FEATURES = "features"


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a network and to feed it.

    Attributes:
        size: images are (size, size, 3).
        mean: subtracted from each channel of images in [0, 1].
        std: what each channel is divided by then.
    """

    name: str
    num_classes: int
    width: int
    bottleneck: int | None
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def build(self, seed: int = 0, weights: str | None = None) -> models.Network:
        """A new network, its weights drawn from `seed` or taken from `weights`."""
        return models.build_model(
            self.name,
            self.num_classes,
            width=self.width,
            weights=weights,
            bottleneck=self.bottleneck,
            seed=seed,
            image_size=self.size,
        )

    @property
    def num_values(self) -> int:
        """Numbers that the network sees of a row."""
        return 3 * self.size**2

    @property
    def is_linear(self) -> bool:
        """Whether it is a last layer alone, whose features training does not move."""
        return False

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """(N, size, size, 3) uint8 as the network's input, (N, 3, size, size) float32, on the same device."""
        return normalize(images, self.mean, self.std)


@dataclass(frozen=True)
class FeatureSpec(NetworkSpec):
    """A last layer alone, on standardized features; those of a row are an image of one pixel of `width` channels."""

    def build(self, seed: int = 0, weights: str | None = None) -> models.Network:
        """A network of zeros: nothing is drawn, and there is no body that weights could be of."""
        return models.linear_network(self.width, self.num_classes)

    @property
    def num_values(self) -> int:
        """As many as there are features."""
        return self.width

    @property
    def is_linear(self) -> bool:
        """True: features are what it is given."""
        return True

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 1, 1, d) float32 as (N, d, 1, 1)."""
        return images.permute(0, 3, 1, 2)


def feature_spec(num_features: int, num_classes: int) -> FeatureSpec:
    """The network that learns from so many features."""
    return FeatureSpec(FEATURES, num_classes, num_features, None, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def network_spec(config: Config, num_classes: int, role: str = MAIN) -> NetworkSpec:
    """The network of a role, with what the config leaves open filled by the model's defaults."""
    model = config.model_of(role)
    defaults = models.model_defaults(model.name)
    return NetworkSpec(
        name=model.name,
        num_classes=num_classes,
        width=model.width,
        bottleneck=model.bottleneck,
        size=model.size or config.data.size or defaults.size,
        mean=config.data.mean or defaults.mean,
        std=config.data.std or defaults.std,
    )
