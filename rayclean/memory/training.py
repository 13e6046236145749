"""Trainings of a run in memory, in parts if need be: what one has given so far, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array
from rayclean.storage.contents import write
from rayclean.storage.executor import TrainFunction
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.storage.units import block_range, num_blocks
from rayclean.train.loop import Rank, State
from rayclean.train.snapshots import read_tensors
from rayclean.train.stage import lost_epochs
from rayclean.train.task import RoleTask
from rayclean.train.trajectories import read_trajectory, trajectory_name
from rayclean.train.worker import TrainTask, train

Trajectory = tuple[Array, Array, Array]  # loss, margin, wrong of all rows after an epoch
COLUMNS = ("loss", "margin", "wrong")


@dataclass
class Training:
    """What training has given so far: all that must be kept to score by it, or to go on with it.

    Attributes:
        trajectories: one entry per epoch.
        weights: by epoch, of the epochs that are kept.
        state: what training goes on from; None before the first epoch, and not needed after the last.
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    weights: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    state: State | None = None


AfterEpoch = Callable[[int, Training], bool]


class _Paused(Exception):
    """Training ends before its last epoch, as was asked for."""


def train_further(task: RoleTask, training: Training, after_epoch: AfterEpoch | None) -> None:
    """Trains a role to its end, or until `after_epoch` returns False; what comes of it goes to `training`.

    Raises:
        InputError: the training is of other rows or of other settings.
        ConfigError: it is of heads, which learn in seconds.
    """
    if not isinstance(task, TrainTask):
        raise ConfigError("model.frozen: heads on features are not trained in parts; use fit_features")
    if task.train.epochs == 0:
        training.weights[0] = {name: tensor.cpu() for name, tensor in task.new_network().state_dict().items()}
        return

    def report(epoch: int, state: State | None) -> None:
        blocks = range(num_blocks(task.catalog.num_rows, task.block_rows))
        pieces = [read_trajectory(task.store, task.folder, epoch, block) for block in blocks]
        loss, margin, wrong = (np.concatenate(column) for column in zip(*pieces, strict=True))
        training.trajectories.append((loss, margin, wrong))
        if epoch in task.kept_epochs():
            training.weights[epoch] = read_tensors(task.store, task.snapshot_file(epoch))
        training.state = state
        if after_epoch is not None and not after_epoch(epoch, training):
            raise _Paused

    with suppress(_Paused):
        train(task, Rank(0, 1), _put(task, training), report)
    if len(training.trajectories) == task.train.epochs:
        training.state = None  # it holds the network and its momentum on the device


@dataclass(frozen=True)
class GoesOn:
    """A trainer of this process that goes on from what was trained before.

    Attributes:
        given: by role.
    """

    given: Mapping[str, Training]

    def __call__(
        self,
        function: TrainFunction,
        task: Any,
        store: Store,
        folder: str,
        lost: int | None = None,
        stop: int | None = None,
    ) -> None:
        """As `rayclean.storage.executor.Trainer`."""
        resume = _put(task, self.given.get(task.role, Training()))
        function(task, 0, 1, resume, lambda epoch, state: None)
        if lost_epochs(task):
            raise InputError(f"role {task.role}: no weights of epochs {lost_epochs(task)} were given; keep all of them")


def _put(task: TrainTask, training: Training) -> Resume:
    """Puts what there is of a training where its task looks for it; returns where it goes on."""
    num_rows, done = task.catalog.num_rows, len(training.trajectories)
    for epoch, columns in enumerate(training.trajectories, start=1):
        if len(columns[0]) != num_rows:
            raise InputError(f"role {task.role}: trained on {len(columns[0])} samples, found {num_rows}; give the same")
        table = pa.table(dict(zip(COLUMNS, columns, strict=True)))
        for block in range(num_blocks(num_rows, task.block_rows)):
            start, stop = block_range(block, task.block_rows, num_rows)
            write(task.store, f"{task.folder}/{trajectory_name(epoch, block)}", table.slice(start, stop - start))
    for epoch, weights in training.weights.items():
        write(task.store, task.snapshot_file(epoch), {name: tensor.numpy() for name, tensor in weights.items()})
    state = training.state
    if done and state is None:
        if done < task.train.epochs or task.missing_of(done):
            raise InputError(
                f"role {task.role}: {done} epochs of {task.train.epochs} with weights of {sorted(training.weights)}, "
                "and no state to go on from; give what `train` returned for these settings"
            )
        state = {"epoch": done}
    return Resume(state, done)


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Undoes what training sets for the whole process: a notebook goes on with its own settings."""
    mode, state = torch.get_deterministic_debug_mode(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_rng_state(state)
