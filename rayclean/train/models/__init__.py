"""Networks: images to penultimate features to logits, by name."""

from rayclean.train.models.network import Network
from rayclean.train.models.registry import MODEL_NAMES, ModelDefaults, build_model, model_defaults

__all__ = ["MODEL_NAMES", "ModelDefaults", "Network", "build_model", "model_defaults"]
