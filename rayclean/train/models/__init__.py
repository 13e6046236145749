"""Networks: images to penultimate features to logits, by name."""

from rayclean.train.models.images import Images
from rayclean.train.models.linear import linear_network
from rayclean.train.models.network import Network
from rayclean.train.models.registry import MODEL_NAMES, build_model, is_published, model_defaults, weights_images

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
