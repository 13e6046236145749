"""Snapshots: the weights of a role after an epoch, as one safetensors file, and the network to load them into."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayclean.config import MAIN, Config
from rayclean.errors import ConfigError, UnitError
from rayclean.storage.contents import encode, map_arrays
from rayclean.storage.fingerprint import digest
from rayclean.storage.store import Store
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
        size=config.data.size or defaults.size,
        mean=config.data.mean or defaults.mean,
        std=config.data.std or defaults.std,
    )


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of a run.

    Attributes:
        role: the training run that it is of.
        epoch: counted from 1; 0 for weights that were not trained here.
        file: path in the store.
        fingerprint: first 8 hex digits of the SHA-256 of the file.
    """

    role: str
    epoch: int
    file: str
    fingerprint: str


def snapshot_name(epoch: int) -> str:
    """File name of an epoch's snapshot, below the role's folder."""
    return f"snapshots/epoch-{epoch:04d}.safetensors"


def find_snapshot(store: Store, folder: str, role: str, epoch: int) -> Snapshot:
    """A published snapshot with its fingerprint."""
    file = f"{folder}/{snapshot_name(epoch)}"
    return Snapshot(role, epoch, file, digest(store.map(file))[:8])


def publish_weights(store: Store, file: str, network: torch.nn.Module) -> None:
    """Writes a network's parameters and buffers."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    store.publish(file, encode(file, arrays, "{}"))


def _load(network: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies weights into a network.

    Raises:
        ConfigError: they do not belong to this network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as e:
        detail = str(e).splitlines()[-1].strip()
        raise ConfigError(f"{source} does not fit the configured network: {detail}; check model.* in the config") from e


def _read_tensors(store: Store, file: str) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in map_arrays(store, file).items()}


def load_snapshot(store: Store, file: str, spec: NetworkSpec) -> Network:
    """The network of a snapshot, in evaluation mode."""
    network = spec.build()
    _load(network, _read_tensors(store, file), store.full(file))
    return network.eval()


def find_weights(source: str) -> Path:
    """The file that `train.from` names: a snapshot, or the last one of a run or of a checkpoint folder.

    Raises:
        ConfigError: nothing that can be loaded is there.
    """
    path = Path(source)
    if path.is_dir():
        patterns = ("train-main-*/snapshots/epoch-*.safetensors", "snapshots/epoch-*.safetensors", "state.pt")
        found = [sorted(path.glob(pattern), key=lambda p: (p.name, p.stat().st_mtime_ns)) for pattern in patterns]
        files = next((files for files in found if files), None)
        if files is None:
            raise ConfigError(f"train.from {source}: expected a run with snapshots, or a checkpoint folder")
        path = files[-1]
    if not path.exists():
        raise ConfigError(f"train.from {source}: there is no such file or folder")
    return path


def load_weights_from(source: str, network: torch.nn.Module) -> None:
    """Loads what `train.from` names: safetensors, or a torch file read with weights only.

    Raises:
        ConfigError: it cannot be loaded, or does not fit the network.
    """
    path = find_weights(source)
    try:
        if path.suffix == ".safetensors":
            state: Any = _read_tensors(Store(str(path.parent)), path.name)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnitError as e:
        raise ConfigError(f"train.from {e}") from e
    except Exception as e:
        raise ConfigError(f"train.from {path}: cannot be loaded with weights only ({e}); save a state dict") from e
    if isinstance(state, dict):
        state = state.get("model", state)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"train.from {path}: expected a state dict (tensors by name), found {type(state).__name__}")
    _load(network, state, str(path))


def weights_digest(source: str | None) -> str | None:
    """SHA-256 of the file that a config names as weights; a name that is not a file stands for itself."""
    if source is None or not Path(source).exists():
        return source
    with find_weights(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
