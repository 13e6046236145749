"""What a cell of the papers' tables keeps on disk: its trained networks, whole or half way. JSON and safetensors only.

CELL/settings.json                       what all of it is made with
CELL/ROLE/epoch-0001.safetensors         loss, margin and wrong of every row after an epoch
CELL/ROLE/weights-0010.safetensors       a snapshot
CELL/ROLE/state.safetensors              network, momentum and epoch to go on from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rayclean.errors import ConfigError
from rayclean.memory.training import Training
from rayclean.schema import Array
from rayclean.storage.contents import encode, map_arrays, read_json
from rayclean.storage.store import Store


class CellFolder:
    """What a cell keeps on disk: one folder per role with trajectories, snapshots and the state to go on from.

    Args:
        store: OUT/CELL.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def claim(self, settings: dict[str, Any]) -> None:
        """Writes down what the folder is made with.

        Raises:
            ConfigError: it was made with something else.
        """
        wanted = json.loads(json.dumps(settings))
        if not self.store.exists("settings.json"):
            self._publish("settings.json", wanted)
        found = read_json(self.store, "settings.json")
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            raise ConfigError(f"{self.store.root} was made with other {', '.join(differing)}: name another --out")

    def save(self, role: str, epoch: int, training: Training, with_state: bool) -> None:
        """Adds the last epoch; an epoch counts once a state that is as late is there."""
        columns = zip(("loss", "margin", "wrong"), training.trajectories[-1], strict=True)
        self._publish(f"{role}/epoch-{epoch:04d}.safetensors", dict(columns))
        if epoch in training.weights:
            self._publish(f"{role}/weights-{epoch:04d}.safetensors", _numpy(training.weights[epoch]))
        if with_state and training.state is not None:
            optimizer = training.state["optimizer"]
            groups = np.frombuffer(json.dumps(optimizer["param_groups"]).encode(), np.uint8)
            model = {f"model.{name}": value for name, value in training.state["model"].items()}
            momentum = {f"momentum.{i}": each["momentum_buffer"] for i, each in optimizer["state"].items()}
            state = {**_numpy({**model, **momentum}), "groups": groups, "epoch": np.array([epoch])}
            self._publish(f"{role}/state.safetensors", state)

    def load(self, role: str) -> Training:
        """What there is of a role."""
        if not self.store.exists(f"{role}/state.safetensors"):
            return Training()
        arrays = map_arrays(self.store, f"{role}/state.safetensors")
        last = int(arrays["epoch"][0])
        momentum = {int(name): {"momentum_buffer": value} for name, value in _tensors(arrays, "momentum.").items()}
        optimizer = {"state": momentum, "param_groups": json.loads(arrays["groups"].tobytes())}
        training = Training(state={"model": _tensors(arrays, "model."), "optimizer": optimizer, "epoch": last})
        for epoch in range(1, last + 1):
            found = map_arrays(self.store, f"{role}/epoch-{epoch:04d}.safetensors")
            training.trajectories.append((found["loss"], found["margin"], found["wrong"]))
            name = f"{role}/weights-{epoch:04d}.safetensors"
            if self.store.exists(name):
                training.weights[epoch] = _tensors(map_arrays(self.store, name))
        return training

    def _publish(self, name: str, content: Any) -> None:
        self.store.publish(name, encode(name, content, "{}"))


def _numpy(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, Array], prefix: str = "") -> dict[str, torch.Tensor]:
    """Tensors of the arrays with a prefix, which is dropped."""
    named = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return {name: torch.from_numpy(np.array(value)) for name, value in named.items()}
