"""Makes networks by name; see `registry.py` for which there are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rayclean.train.models import lite_model, preact_resnet, resnet34, timm_models, wide_resnet
from rayclean.train.models.custom import custom_body
from rayclean.train.models.names import LITE
from rayclean.train.models.network import Network
from rayclean.train.models.preact_resnet import PreActResNet18
from rayclean.train.models.registry import MODEL_NAMES, check_model_name
from rayclean.train.models.resnet34 import SmallImageResNet34
from rayclean.train.models.small_resnet import SmallResNet
from rayclean.train.models.torchvision_models import torchvision_body
from rayclean.train.models.weights import load_state, read_state
from rayclean.train.models.wide_resnet import WideResNet28x2

# width -> body and its feature_dim; only `small_resnet` has a width of its own.
_BODIES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "small_resnet": lambda width: (SmallResNet(width), 4 * width),
    "preact_resnet18": lambda _: (PreActResNet18(), preact_resnet.FEATURE_DIM),
    "wide_resnet28_2": lambda _: (WideResNet28x2(), wide_resnet.FEATURE_DIM),
    "resnet34_small": lambda _: (SmallImageResNet34(), resnet34.FEATURE_DIM),
}


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
        if name == LITE:
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
