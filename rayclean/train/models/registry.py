"""Networks by name: those of this package, any of torchvision's or timm's, or a user's by import path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from rayclean.errors import ConfigError
from rayclean.train.models import lite_model, preact_resnet, resnet34, timm_models, wide_resnet
from rayclean.train.models.custom import custom_body
from rayclean.train.models.images import Images
from rayclean.train.models.names import unknown_name
from rayclean.train.models.network import Network
from rayclean.train.models.preact_resnet import PreActResNet18
from rayclean.train.models.resnet34 import SmallImageResNet34
from rayclean.train.models.small_resnet import SmallResNet
from rayclean.train.models.torchvision_models import torchvision_body, torchvision_images, torchvision_names
from rayclean.train.models.weights import load_state, read_state
from rayclean.train.models.wide_resnet import WideResNet28x2

# width -> body and its feature_dim; only `small_resnet` has a width of its own.
_BODIES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "small_resnet": lambda width: (SmallResNet(width), 4 * width),
    "preact_resnet18": lambda _: (PreActResNet18(), preact_resnet.FEATURE_DIM),
    "wide_resnet28_2": lambda _: (WideResNet28x2(), wide_resnet.FEATURE_DIM),
    "resnet34_small": lambda _: (SmallImageResNet34(), resnet34.FEATURE_DIM),
}
MODEL_NAMES = tuple(_BODIES)


CIFAR_DEFAULTS = Images(32, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
IMAGENET_DEFAULTS = Images(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION_DEFAULTS = replace(IMAGENET_DEFAULTS, size=299)
LITE_DEFAULTS = replace(IMAGENET_DEFAULTS, size=lite_model.SIZE, interpolation="bicubic")


def model_defaults(name: str) -> Images:
    """The images that a network is made for; for a user's own network those of ImageNet backbones.

    Raises:
        ConfigError: there is no such network, or timm, which it is of, is not installed.
    """
    check_model_name(name)
    if name in MODEL_NAMES:
        return CIFAR_DEFAULTS
    if name == lite_model.LITE:
        return LITE_DEFAULTS
    if name.startswith(timm_models.PREFIX):
        return timm_models.timm_images(name)
    return INCEPTION_DEFAULTS if name == "inception_v3" else IMAGENET_DEFAULTS


def weights_images(name: str, weights: str) -> Images:
    """The images that weights, a name or a file, are evaluated on, as the library that has them says.

    Raises:
        ConfigError: there is no such network or weights, or their library is not installed.
    """
    if not is_published(name) or name == lite_model.LITE:
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
    here = (*MODEL_NAMES, lite_model.LITE)
    if name in here or ":" in name:
        return
    try:
        names = (*here, *torchvision_names())
    except ConfigError as e:
        raise ConfigError(f"{unknown_name('model.name', name, here)}; of others: {e}") from e
    if name not in names:
        raise unknown_name("model.name", name, (*names, "timm:NAME", "package.module:factory"))


def build_model(
    name: str,
    num_classes: int,
    *,
    width: int = 16,
    weights: str | None = None,
    bottleneck: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
) -> Network:
    """Builds a network on the CPU, in training mode.

    Args:
        name: one of `MODEL_NAMES`, `lite`, a network of torchvision, `timm:NAME`, or `package.module:factory`.
        num_classes: K.
        width: w of `small_resnet`.
        weights: for `lite` and networks of torchvision and timm `DEFAULT`, a name of their weights, or a file with
            their state dict, whose head is dropped; for a user's network a file with its state dict; else a
            snapshot's file.
        bottleneck: units of a linear layer with ReLU before the last one; a user's head is then drawn anew.
        seed: of all weights that are drawn; torch's global generators stay untouched.
        image_size: side of the images, for networks that are built for one size.

    Raises:
        ConfigError: the name, the weights, or what a user's factory returns cannot be right.
    """
    check_model_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        if name.startswith(timm_models.PREFIX):
            body, dim = timm_models.timm_body(name, weights, image_size)
            return _network(body, dim, num_classes, bottleneck)
        if ":" in name:
            body, head = custom_body(name, num_classes, weights)
            return _network(body, head.in_features, num_classes, bottleneck, head)
        if name == lite_model.LITE:
            body, dim = lite_model.lite_body(weights, image_size)
            return _network(body, dim, num_classes, bottleneck)
        if name not in MODEL_NAMES:
            body, dim = torchvision_body(name, weights, image_size)
            return _network(body, dim, num_classes, bottleneck)
        body, dim = _BODIES[name](width)
        network = _network(body, dim, num_classes, bottleneck)
    if weights is not None:
        expected = f"a snapshot of {name} with model.width, model.bottleneck and classes as configured"
        load_state(network, read_state(weights), weights, expected)
    return network


def _network(
    body: nn.Module, dim: int, num_classes: int, bottleneck: int | None, head: nn.Linear | None = None
) -> Network:
    if bottleneck is None:
        return Network(body, head or nn.Linear(dim, num_classes))
    layers = nn.Sequential(nn.Linear(dim, bottleneck), nn.ReLU())
    return Network(body, nn.Linear(bottleneck, num_classes), layers)
