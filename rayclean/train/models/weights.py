"""State dicts from files, without ever running what a pickle holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rayclean.errors import ConfigError, DamagedFile
from rayclean.late import nn, torch

State: TypeAlias = "Mapping[str, torch.Tensor]"
WRAPPERS = ("model", "state_dict")  # keys under which checkpoints keep the state dict


def is_file_name(weights: str) -> bool:
    """Whether `model.weights` means a file: the names that libraries give weights hold neither dots nor slashes."""
    return Path(weights).is_file() or "/" in weights or "." in weights


def read_state(path: str, field: str = "model.weights") -> State:
    """Reads a state dict: `.safetensors`, or a torch file loaded with weights only.

    Args:
        path: the file.
        field: of the config that names it, for the error.

    Raises:
        ConfigError: there is no such file, or it holds anything but tensors by name.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"{field} {path}: there is no such file; only lite, torchvision's and timm's networks have weights by name"
        )
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file  # neither is needed to score arrays in memory

            from rayclean.storage.checksums import check_arrays

            check_arrays(memoryview(Path(path).read_bytes()), path)
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedFile as e:
        raise ConfigError(f"{field} {path}: is damaged ({e.reason}); take another copy") from e
    except Exception as e:
        cause = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ConfigError(f"{field} {path}: cannot be loaded with weights only ({cause}); save a state dict") from e
    if isinstance(state, Mapping):
        state = next((state[key] for key in WRAPPERS if key in state), state)
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ConfigError(f"{field} {path}: expected a state dict (tensors by name), found {type(state).__name__}")
    return dict(state)


def load_state(module: nn.Module, state: State, source: str, expected: str) -> None:
    """Copies a state dict into a module, every name and shape equal.

    Args:
        module: changed in place.
        state: tensors by name.
        source: where they come from, for the error.
        expected: what they should be, for the error.

    Raises:
        ConfigError: they do not fit.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as e:
        detail = str(e).splitlines()[-1].strip()[:200]
        raise ConfigError(f"model.weights {source}: expected {expected}; {detail}") from e
