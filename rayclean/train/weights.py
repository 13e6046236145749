"""Weights that a config names: found, read without running what a pickle holds, and loaded into a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from rayclean.errors import ConfigError
from rayclean.late import torch
from rayclean.train.models.weights import read_state


def fit_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies weights into a network.

    Raises:
        ConfigError: they do not belong to this network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as e:
        detail = str(e).splitlines()[-1].strip()
        raise ConfigError(f"{source} does not fit the configured network: {detail}; check model.* in the config") from e


# What `train.from` may name by its folder, best first: a run, a role of a run, a checkpoint.
PATTERNS = ("train-main-*/snapshots/epoch-*.safetensors", "snapshots/epoch-*.safetensors", "state.pt")


def find_weights(source: str) -> Path:
    """The file that `train.from` names: a snapshot, or the last one of a run or of a checkpoint folder.

    Of a URL it is a copy on this node.

    Raises:
        ConfigError: nothing that can be loaded is there.
    """
    if "://" in source:
        return _fetch(source)
    path = Path(source)
    if path.is_dir():
        found = [sorted(path.glob(pattern), key=lambda p: (p.name, p.stat().st_mtime_ns)) for pattern in PATTERNS]
        files = next((files for files in found if files), None)
        if files is None:
            raise ConfigError(f"train.from {source}: expected a run with snapshots, or a checkpoint folder")
        path = files[-1]
    if not path.exists():
        raise ConfigError(f"train.from {source}: there is no such file or folder")
    return path


def _fetch(source: str) -> Path:
    import fsspec  # not needed to score arrays in memory

    from rayclean.storage.node import node_folder
    from rayclean.storage.remote import START_PATIENCE_S, patiently, tried_for

    try:
        fs, path = fsspec.core.url_to_fs(source)
        names = [path]
        if tried_for(START_PATIENCE_S, fs.isdir, path):
            found = [patiently(fs.glob, f"{path.rstrip('/')}/{pattern}") for pattern in PATTERNS]
            names = next((files for files in found if files), [])
        if not names:
            raise ConfigError(f"train.from {source}: expected a run with snapshots, or a checkpoint folder")
        last = max(names, key=lambda name: (name.rpartition("/")[2], patiently(fs.modified, name)))
        data: bytes = patiently(fs.cat_file, last)
    except FileNotFoundError as e:
        raise ConfigError(f"train.from {source}: there is no such file or folder") from e
    except (ValueError, ImportError, PermissionError) as e:
        raise ConfigError(f"train.from {source}: cannot be read: {e}") from e
    copy = node_folder("weights") / f"{hashlib.sha256(data).hexdigest()[:16]}-{last.rpartition('/')[2]}"
    # Workers of a node may fetch it at the same time: its name appears when it is whole.
    temporary = copy.with_name(f"{copy.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.rename(temporary, copy)
    return copy


def load_weights_from(source: str, network: torch.nn.Module) -> None:
    """Loads what `train.from` names: safetensors, or a torch file read with weights only.

    Raises:
        ConfigError: it cannot be loaded, or does not fit the network.
    """
    path = str(find_weights(source))
    fit_weights(network, read_state(path, "train.from"), path)


def weights_digest(source: str | None) -> str | None:
    """SHA-256 of the file that a config names as weights; a name that is not a file stands for itself."""
    if source is None or not ("://" in source or Path(source).exists()):
        return source
    with find_weights(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
