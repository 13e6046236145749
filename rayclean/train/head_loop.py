"""Trains heads on features that are read in blocks, on any number of ranks, to the same bytes.

Heads have nothing to do with each other, so the ranks share them out in fixed groups and meet once per epoch; one
product gives the logits of a group, a mask tells which rows a head learns from. They learn by MixUp between features,
whose partners are drawn within a fold, so that no row of a fold reaches the head that is blind to it.

Letters: N rows, d features, K classes, F folds, H heads in all, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from rayclean.errors import InputError
from rayclean.late import dist, torch
from rayclean.schema import Array
from rayclean.train.head_layers import Layers, Tensors, single_thread
from rayclean.train.head_losses import Batch, logit_gradient, mixed_batch
from rayclean.train.heads import Heads, HeadSettings, rate_rows, stable_rate
from rayclean.train.loop import Rank, State
from rayclean.train.plan import epoch_seed
from rayclean.train.windows import WINDOW_ROWS, Rows, WindowReader, epoch_windows, window_rows_of

MOMENTUM = 0.9
GROUP_LOGITS = 30  # of a row by a group of heads, about: products of fewer are slow, and groups are what ranks share


@dataclass(frozen=True)
class HeadTask:
    """What heads learn.

    Attributes:
        targets: (N,) integers 0..K-1, or (N, K) float32 with what each class has of a row.
        folds: (N,) integers 0..F-1.
        num_classes: K.
        settings: how.
        seed: of the order of the rows and of MixUp.
        rate: of the first step, of `stable_rate`.
        weights: (N,) at least 0, of the rows' losses, whose sum is still divided by their number, so that few sure rows
            make a small step; those of 0 are left out of all batches. None where all count alike.
        block_rows: consecutive rows that are read at once.
        window_rows: rows that are held at once, give or take a block.
    """

    targets: Array
    folds: Array
    num_classes: int
    settings: HeadSettings
    seed: int
    rate: float
    weights: Array | None = None
    block_rows: int = WINDOW_ROWS
    window_rows: int = WINDOW_ROWS

    @property
    def epochs(self) -> int:
        """Epochs in all.

        Raises:
            InputError: there is no row to learn from.
        """
        num_rows = len(self.folds) if self.weights is None else int(np.count_nonzero(self.weights > 0))
        if not num_rows:
            raise InputError(f"heads: none of {len(self.folds)} rows has a weight above 0; expected some to learn from")
        return self.settings.epochs_of(num_rows)


def head_epochs(
    rows: Rows, task: HeadTask, rank: Rank, state: State | None = None
) -> Iterator[tuple[int, Heads, State]]:
    """Trains all heads from `state`, or from the start, and hands them over after each epoch.

    Every rank reads all rows and hands over all heads; their bytes depend neither on the number of ranks and of their
    threads nor on where training was resumed.

    Args:
        rows: features of `standardized` kind, on the device that the heads learn on.
        task: what to learn.
        rank: this process; of several, in a process group.
        state: what an earlier start handed over last; None at the start.

    Yields:
        The epoch, counted from 1, the heads, and the state to go on from: tensors whose contents go on changing.

    Raises:
        InputError: there is no row to learn from.
    """
    epochs = task.epochs
    values, velocities, first = _start(rows, task, state)
    groups = _groups(task.settings, values, velocities)
    reader = WindowReader(rows, len(task.folds), task.block_rows)
    heads = Heads(values, task.folds, task.settings)
    for epoch in range(first, epochs + 1):
        _train_epoch(reader, task, epoch, groups[rank.index :: rank.count])
        _exchange(groups, rank)
        yield epoch, heads, {"epoch": epoch, "heads": values, "velocities": velocities}


def train_heads(
    features: torch.Tensor, labels: Array, folds: Array, num_classes: int, settings: HeadSettings, seed: int
) -> Iterator[Heads]:
    """Trains all heads on features in memory, in this process, and yields them after each epoch.

    Args:
        features: (N, d) float32 of `standardized`, on the device that they learn on.
        labels: (N,) integers 0..K-1.
        folds: (N,) integers 0..F-1.
        num_classes: K.
        settings: how.
        seed: of the order of the rows and of MixUp.
    """

    def rows(at: Array) -> torch.Tensor:
        return features[torch.from_numpy(at).to(features.device)]

    rate = stable_rate(rows(rate_rows(len(features), seed)), seed)
    task = HeadTask(labels, folds, num_classes, settings, seed, rate)
    for _, heads, _ in head_epochs(rows, task, Rank(0, 1)):
        yield heads


@dataclass
class _Group:
    """Heads that are computed together: views of all heads' tensors.

    Attributes:
        keep: (G, F) 1 where a head learns from a fold, else 0.
        decay: (G, 1, 1).
    """

    layers: Layers
    loss: str
    values: Tensors
    velocities: Tensors
    keep: torch.Tensor
    decay: torch.Tensor

    def step(self, batch: Batch, rate: float) -> None:
        """One step of SGD with Nesterov's momentum."""
        mask = self.keep[:, batch.folds]
        # The mean over the rows that a head learns from; one without any in a batch moves by decay and momentum.
        mask = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        logits, seen = self.layers.logits(self.values, batch.inputs)
        error = logit_gradient(self.loss, logits, batch.target, batch.amount) * mask[:, None]
        for name, gradient in self.layers.gradients(self.values, batch.inputs, seen, error).items():
            value, velocity = self.values[name], self.velocities[name]
            if value.dim() == 3:  # biases do not decay
                gradient.addcmul_(value, self.decay)
            velocity.mul_(MOMENTUM).add_(gradient)
            # Nesterov as torch's SGD has it: the gradient where the weights are, the look ahead in the step.
            value.sub_(gradient.add_(velocity, alpha=MOMENTUM), alpha=rate)


def _train_epoch(reader: WindowReader, task: HeadTask, epoch: int, groups: list[_Group]) -> None:
    """An epoch of some groups, which the threads that torch may use share out."""

    def steps(batch: Batch, rate: float, share: list[_Group]) -> None:
        for group in share:
            group.step(batch, rate)

    with single_thread() as threads:
        mine, *others = [groups[thread::threads] for thread in range(max(1, min(threads, len(groups))))]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for batch, progress in _batches(reader, task, epoch):
                rate = task.rate * 0.5 * (1 + np.cos(np.pi * progress))
                started = pool.map(partial(steps, batch, rate), others)
                steps(batch, rate, mine)
                # Waits for the other threads, and raises what one of them raised.
                list(started)


def _start(rows: Rows, task: HeadTask, state: State | None) -> tuple[Tensors, Tensors, int]:
    """All heads' tensors and velocities, and the epoch to do first."""
    sample = rows(np.zeros(1, np.int64))
    if state is None:
        num_heads = task.settings.num_heads
        values = task.settings.layers.start(sample.shape[1], num_heads, task.num_classes, task.seed)
        state = {"epoch": 0, "heads": values, "velocities": {name: torch.zeros_like(v) for name, v in values.items()}}
    both = (
        {name: v.to(sample.device, copy=True) for name, v in state[part].items()} for part in ("heads", "velocities")
    )
    return *both, state["epoch"] + 1


def _groups(settings: HeadSettings, values: Tensors, velocities: Tensors) -> list[_Group]:
    """The heads in groups that do not depend on the number of ranks."""
    device = values["bias"].device
    # One row per head of a decay, in the order of `Heads.blind_to` and `Heads.seeing`.
    seen = np.vstack([1 - np.eye(settings.folds), np.ones(settings.folds)]).astype(np.float32)
    keep = torch.from_numpy(np.tile(seen, (len(settings.weight_decays), 1))).to(device)
    decay = torch.from_numpy(np.repeat(np.array(settings.weight_decays, np.float32), settings.folds + 1)).to(device)
    found = []
    num_groups = min(settings.num_heads, -(-values["bias"].numel() // GROUP_LOGITS))
    for heads in np.array_split(np.arange(settings.num_heads), num_groups):
        part = slice(int(heads[0]), int(heads[-1]) + 1)
        mine, speed = ({name: tensor[part] for name, tensor in each.items()} for each in (values, velocities))
        found.append(_Group(settings.layers, settings.loss, mine, speed, keep[part], decay[part, None, None]))
    return found


def _batches(reader: WindowReader, task: HeadTask, epoch: int) -> Iterator[tuple[Batch, float]]:
    """The batches of an epoch with the share of the whole training that is done before each."""
    windows = epoch_windows(task.seed, epoch, len(task.folds), task.block_rows, task.window_rows)
    steps = [task.settings.steps_of(len(_trained(task, blocks))) for blocks in windows]
    step, total = (epoch - 1) * sum(steps), task.epochs * sum(steps)
    for window, blocks in enumerate(windows):
        rng = np.random.default_rng(epoch_seed(task.seed, epoch - 1, window, "heads"))
        order = rng.permutation(_trained(task, blocks))
        rows = window_rows_of(blocks, len(task.folds), task.block_rows)
        for at in np.array_split(order, steps[window]) if len(order) else ():
            yield _batch(reader.read(blocks), at, rows[at], task, rng), step / total
            step += 1


def _trained(task: HeadTask, blocks: Array) -> Array:
    """(R,) int64 the positions in a window of the rows that are trained on."""
    rows = window_rows_of(blocks, len(task.folds), task.block_rows)
    return np.arange(len(rows)) if task.weights is None else np.flatnonzero(task.weights[rows] > 0)


def _batch(window: torch.Tensor, at: Array, rows: Array, task: HeadTask, rng: np.random.Generator) -> Batch:
    """The batch of some rows, which stand at these positions of a window."""
    inputs = window[torch.from_numpy(at).to(window.device)]
    weights = None if task.weights is None else task.weights[rows]
    alpha = task.settings.alpha if task.settings.loss == "mixup" else 0.0
    return mixed_batch(inputs, task.folds[rows], task.targets[rows], weights, task.num_classes, alpha, rng)


def _exchange(groups: list[_Group], rank: Rank) -> None:
    """Gives every rank the heads of the others."""
    if rank.count > 1:
        # From the rank that has trained it: groups are dealt out in turn.
        for number, group in enumerate(groups):
            for tensor in (*group.values.values(), *group.velocities.values()):
                dist.broadcast(tensor, number % rank.count)
