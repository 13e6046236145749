"""Snapshots: the weights of a role after an epoch, as one safetensors file, and the network to load them into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rayclean.late import torch
from rayclean.storage.contents import content_digest, map_arrays, write
from rayclean.storage.store import Store
from rayclean.train.spec import NetworkSpec
from rayclean.train.weights import fit_weights

if TYPE_CHECKING:
    from rayclean.train.models import Network


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of a run.

    Attributes:
        role: the training run that it is of.
        epoch: counted from 1; 0 for weights that were not trained here.
        file: path in the store.
        fingerprint: first 8 hex digits of the SHA-256 of what the file holds.
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
    return Snapshot(role, epoch, file, content_digest(store, file)[:8])


def publish_weights(store: Store, file: str, network: torch.nn.Module) -> None:
    """Writes a network's parameters and buffers."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    write(store, file, arrays)


def read_tensors(store: Store, file: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers, as they were published."""
    return {name: torch.from_numpy(np.array(value)) for name, value in map_arrays(store, file).items()}


def load_snapshot(store: Store, file: str, spec: NetworkSpec) -> Network:
    """The network of a snapshot, in evaluation mode."""
    network = spec.build()
    fit_weights(network, read_tensors(store, file), store.full(file))
    return network.eval()
