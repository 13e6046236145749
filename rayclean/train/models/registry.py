"""Networks by name: those of this package, any of torchvision's or timm's, or a user's by import path.

Which there are and what images they are made for; `build.py` makes them, and alone needs their classes.
"""

from __future__ import annotations

from dataclasses import replace

from rayclean.errors import ConfigError
from rayclean.train.models import timm_models
from rayclean.train.models.images import Images
from rayclean.train.models.names import LITE, LITE_SIZE, unknown_name
from rayclean.train.models.torchvision_models import torchvision_images, torchvision_names

MODEL_NAMES = ("small_resnet", "preact_resnet18", "wide_resnet28_2", "resnet34_small")
CIFAR_DEFAULTS = Images(32, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
IMAGENET_DEFAULTS = Images(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION_DEFAULTS = replace(IMAGENET_DEFAULTS, size=299)
LITE_DEFAULTS = replace(IMAGENET_DEFAULTS, size=LITE_SIZE, interpolation="bicubic")


def model_defaults(name: str) -> Images:
    """The images that a network is made for; for a user's own network those of ImageNet backbones.

    Raises:
        ConfigError: there is no such network, or timm, which it is of, is not installed.
    """
    check_model_name(name)
    if name in MODEL_NAMES:
        return CIFAR_DEFAULTS
    if name == LITE:
        return LITE_DEFAULTS
    if name.startswith(timm_models.PREFIX):
        return timm_models.timm_images(name)
    return INCEPTION_DEFAULTS if name == "inception_v3" else IMAGENET_DEFAULTS


def weights_images(name: str, weights: str) -> Images:
    """The images that weights, a name or a file, are evaluated on, as the library that has them says.

    Raises:
        ConfigError: there is no such network or weights, or their library is not installed.
    """
    if not is_published(name) or name == LITE:
        return model_defaults(name)
    by_library = timm_models.timm_images if name.startswith(timm_models.PREFIX) else torchvision_images
    return by_library(name, weights)


def is_published(name: str) -> bool:
    """Whether a network has weights by name: those of timm, torchvision and `lite` have, ours and a user's not."""
    check_model_name(name)
    return name not in MODEL_NAMES and (name.startswith(timm_models.PREFIX) or ":" not in name)


def check_model_name(name: str) -> None:
    """Refuses a name that no network has.

    Names of timm (`timm:NAME`) and import paths (`package.module:factory`) are tried when they are needed.

    Raises:
        ConfigError: with the nearest valid name.
    """
    here = (*MODEL_NAMES, LITE)
    if name in here or ":" in name:
        return
    try:
        names = (*here, *torchvision_names())
    except ConfigError as e:
        raise ConfigError(f"{unknown_name('model.name', name, here)}; of others: {e}") from e
    if name not in names:
        raise unknown_name("model.name", name, (*names, "timm:NAME", "package.module:factory"))
