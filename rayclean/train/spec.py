"""What a network is: all that is needed to build it and to feed it."""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config import MAIN, Config
from rayclean.train.models import Network, build_model, model_defaults


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

    def build(self, seed: int = 0, weights: str | None = None) -> Network:
        """A new network, its weights drawn from `seed` or taken from `weights`."""
        return build_model(
            self.name,
            self.num_classes,
            width=self.width,
            weights=weights,
            bottleneck=self.bottleneck,
            seed=seed,
            image_size=self.size,
        )


def network_spec(config: Config, num_classes: int, role: str = MAIN) -> NetworkSpec:
    """The network of a role, with what the config leaves open filled by the model's defaults."""
    model = config.model_of(role)
    defaults = model_defaults(model.name)
    return NetworkSpec(
        name=model.name,
        num_classes=num_classes,
        width=model.width,
        bottleneck=model.bottleneck,
        size=model.size or config.data.size or defaults.size,
        mean=config.data.mean or defaults.mean,
        std=config.data.std or defaults.std,
    )
