"""One of DivideMix's two networks: what trains it, what it thinks of the rows, and the state to go on from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from rayclean.config import TrainSection
from rayclean.learn.divide import Split
from rayclean.schema import Array
from rayclean.train.loop import Rank, State
from rayclean.train.models import Network
from rayclean.train.optimizer import make_optimizer


@dataclass
class Learner:
    """One of the two networks, what trains it, and what it thinks of the rows.

    Attributes:
        index: 0 or 1.
        network: bare.
        wrapped: the same through DDP, where there are several ranks.
        split: of its last scoring; None before the first.
        split_epoch: before which epoch that was; it tells which rows were drawn.
        history: (R,) float32 cleanness of its last scorings, the newest last; empty where one alone counts.
    """

    index: int
    network: Network
    wrapped: torch.nn.Module
    optimizer: torch.optim.Optimizer
    split: Split | None = None
    split_epoch: int = 0
    history: list[Array] = field(default_factory=list)

    def state(self) -> State:
        """Tensors and plain values, of which the tensors are the live ones."""
        split = self.split
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "split": None
            if split is None
            else {
                "clean": torch.from_numpy(split.clean),
                "is_labelled": torch.from_numpy(split.is_labelled),
                "facts": split.facts,
            },
            "split_epoch": self.split_epoch,
            "history": [torch.from_numpy(each) for each in self.history],
        }

    def load(self, state: State) -> None:
        """Takes what `state` gave."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        split: dict[str, Any] | None = state["split"]
        if split is not None:
            self.split = Split(split["clean"].numpy(), split["is_labelled"].numpy(), split["facts"])
        self.split_epoch = state["split_epoch"]
        self.history = [each.numpy() for each in state["history"]]


def make_learner(train: TrainSection, network: Network, device: str, index: int, rank: Rank) -> Learner:
    """A network before its first step, on its device."""
    network = network.to(torch.device(device)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, train, nesterov=False)
    wrapped = network if rank.count == 1 else torch.nn.parallel.DistributedDataParallel(network)
    return Learner(index, network, wrapped, optimizer)
