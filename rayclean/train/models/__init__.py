"""Networks: images to penultimate features to logits, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayclean.train.models.images import Images
from rayclean.train.models.registry import MODEL_NAMES, is_published, model_defaults, weights_images

if TYPE_CHECKING:
    from rayclean.train.models.build import build_model
    from rayclean.train.models.linear import linear_network
    from rayclean.train.models.network import Network

__all__ = [
    "MODEL_NAMES",
    "Images",
    "Network",
    "build_model",
    "is_published",
    "linear_network",
    "model_defaults",
    "weights_images",
]


def __getattr__(name: str) -> Any:
    """Loads what is made of torch's classes when it is asked for; names and defaults need none of it."""
    if name in ("Network", "build_model"):
        from rayclean.train.models import build

        return getattr(build, name)
    if name == "linear_network":
        from rayclean.train.models.linear import linear_network

        return linear_network
    raise AttributeError(f"module 'rayclean.train.models' has no attribute '{name}'")
