"""A user's own network, named by its import path `package.module:factory`."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from rayclean.errors import ConfigError
from rayclean.train.models.weights import load_state, read_state

EXPECTED = "expected factory(num_classes=K) that returns a torch Module with features(images) and head, a Linear"


class CustomBody(nn.Module):
    """A user's network up to its features.

    Args:
        model: its `head` was taken out.
        name: the import path, for errors.
        feature_dim: d.
    """

    def __init__(self, model: nn.Module, name: str, feature_dim: int) -> None:
        super().__init__()
        self.model: Any = model  # so that its method `features` can be called
        self.name, self.feature_dim = name, feature_dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) images to (N, d) features.

        Raises:
            ConfigError: `features` gives another shape.
        """
        features: torch.Tensor = self.model.features(images)
        expected = (len(images), self.feature_dim)
        if tuple(features.shape) != expected:
            raise ConfigError(
                f"model.name {self.name}: features(images) gave shape {tuple(features.shape)}, expected "
                f"{expected}, the input of its head"
            )
        return features


def custom_body(name: str, num_classes: int, weights: str | None) -> tuple[nn.Module, nn.Linear]:
    """Builds a user's network and takes it apart.

    Args:
        name: `package.module:factory`.
        num_classes: K.
        weights: a file with the state dict of the user's network, head included.

    Returns:
        The body, (N, 3, H, W) to (N, d), and the head (d to K) with the weights that the factory gave it.

    Raises:
        ConfigError: the path cannot be imported, the factory fails, or what it returns lacks a part.
    """
    factory = _import_factory(name)
    try:
        model = factory(num_classes=num_classes)
    except Exception as e:
        raise ConfigError(f"model.name {name}: the factory failed with {type(e).__name__}: {e}; {EXPECTED}") from e
    head = _check(model, name, num_classes)
    if weights is not None:
        load_state(model, read_state(weights), weights, f"the state dict of {name}")
    model.head = nn.Identity()  # the weights belong to the Network's head alone
    return CustomBody(model, name, head.in_features), head


def _import_factory(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"model.name {name}: expected package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # whatever a user's module raises when it is imported
        raise ConfigError(
            f"model.name {name}: module {module_name} cannot be imported ({type(e).__name__}: {e}); "
            "is it installed, or on PYTHONPATH, on every node?"
        ) from e
    factory = getattr(module, attribute, None)
    if not callable(factory):
        found = "nothing" if factory is None else type(factory).__name__
        raise ConfigError(f"model.name {name}: found {found} as {attribute} in {module_name}; {EXPECTED}")
    return factory


def _check(model: Any, name: str, num_classes: int) -> nn.Linear:
    """The head of a user's network that has all the parts."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name {name}: the factory returned {type(model).__name__}; {EXPECTED}")
    if not callable(getattr(model, "features", None)):
        raise ConfigError(f"model.name {name}: {type(model).__name__} has no method features; {EXPECTED}")
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        found = "nothing" if head is None else type(head).__name__
        raise ConfigError(f"model.name {name}: found {found} as head of {type(model).__name__}; {EXPECTED}")
    if head.out_features != num_classes:
        raise ConfigError(
            f"model.name {name}: its head has {head.out_features} outputs, expected one for each "
            f"of the {num_classes} classes"
        )
    return head
