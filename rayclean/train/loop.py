"""The training loop of one rank: plain torch, told by its caller where it stands and whom to report to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from rayclean.catalog.table import Catalog
from rayclean.config import TrainSection
from rayclean.errors import UnitError
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from rayclean.storage.units import block_range, num_blocks
from rayclean.train.augment import augment_float, augment_uint8, normalize
from rayclean.train.feed import Batch, Feed, FeedSettings
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.losses import training_loss
from rayclean.train.models import Network
from rayclean.train.plan import epoch_seed, steps_of
from rayclean.train.precision import autocast
from rayclean.train.snapshots import NetworkSpec, load_weights_from, publish_weights, snapshot_name
from rayclean.train.trajectories import trajectory_name, trajectory_table

State = dict[str, Any]


@dataclass(frozen=True)
class TrainTask:
    """One role's training: picklable, the same on every rank.

    Attributes:
        also_kept: epochs whose weights are kept beside those of `train.snapshot_epochs`.
    """

    role: str
    store: Store
    folder: str
    catalog: Catalog
    spec: NetworkSpec
    train: TrainSection
    also_kept: tuple[int, ...]
    weights: str | None
    feed: FeedSettings
    forward: ForwardSettings
    precision: str
    block_rows: int
    threads: int

    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are published as snapshots."""
        return tuple(sorted({*self.train.snapshot_epochs(), *self.also_kept}))


@dataclass(frozen=True)
class Rank:
    """Who this process is among the training workers."""

    index: int
    count: int


def train(task: TrainTask, rank: Rank, state: State | None, report: Callable[[int, State | None], None]) -> None:
    """Trains from `state`, or from the start, to the last epoch.

    Args:
        task: what to train.
        rank: this process.
        state: what the last registered report held; None at the start.
        report: called by every rank at the end of each epoch with the epoch and, on rank 0, the state.
            The snapshot and trajectories of the epoch lie in the store by then.
    """
    torch.set_num_threads(task.threads)
    torch.use_deterministic_algorithms(True, warn_only=task.forward.device != "cpu")
    device = torch.device(task.forward.device)
    network = _start_network(task).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=task.train.lr,
        momentum=task.train.momentum,
        weight_decay=task.train.weight_decay,
        nesterov=task.train.momentum > 0,
    )
    first = 1
    if state is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    if first > task.train.epochs:
        return
    feed = Feed(task.catalog, task.feed, rank.index, rank.count)
    wrapped = network if rank.count == 1 else torch.nn.parallel.DistributedDataParallel(network)
    for epoch in range(first, task.train.epochs + 1):
        wrapped.train()
        _train_epoch(task, wrapped, optimizer, feed.batches(epoch), epoch, rank)
        _same_buffers(network, rank)
        _evaluate(task, network, feed, epoch, rank)
        if rank.index == 0 and epoch in task.kept_epochs():
            publish_weights(task.store, f"{task.folder}/{snapshot_name(epoch)}", network)
        if rank.index == 0:
            report(epoch, {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch})
        else:
            report(epoch, None)


def _start_network(task: TrainTask) -> Network:
    """The network before the first step: drawn from the seed, pre-trained, or taken from elsewhere."""
    network = task.spec.build(task.feed.seed, task.weights)
    if task.train.from_ is not None:
        load_weights_from(task.train.from_, network)
    return network


def learning_rate(settings: TrainSection, progress: float) -> float:
    """The rate at a share of the whole training in [0, 1)."""
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _train_epoch(
    task: TrainTask,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    epoch: int,
    rank: Rank,
) -> None:
    """One pass over the rank's batches. Every draw comes from (seed, epoch, rank), so an epoch repeats."""
    device = torch.device(task.forward.device)
    generator = torch.Generator().manual_seed(epoch_seed(task.feed.seed, epoch, rank.index, "batches"))
    torch.manual_seed(epoch_seed(task.feed.seed, epoch, rank.index, "dropout"))
    steps = steps_of(num_blocks(task.catalog.num_rows, rank.count), task.train.batch_size)
    for step, (images, labels) in enumerate(batches):
        rate = learning_rate(task.train, (epoch - 1 + step / steps) / task.train.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = normalize(augment_uint8(images, task.train.augment, generator), task.spec.mean, task.spec.std)
        inputs = augment_float(inputs, task.train.augment, generator).to(device, memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with autocast(task.precision, device.type):
            loss = training_loss(task.train.loss, network, inputs, labels.to(device), task.train.mixup_alpha, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _same_buffers(network: torch.nn.Module, rank: Rank) -> None:
    """Gives every rank the BatchNorm buffers of rank 0: after the last step they differ, and so would scores."""
    if rank.count > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _evaluate(task: TrainTask, network: Network, feed: Feed, epoch: int, rank: Rank) -> None:
    """Writes the trajectories of an epoch; the ranks share the blocks out. Uses the bare module, not DDP's."""
    forward = Forward(network, task.spec, task.forward)
    total = task.catalog.num_rows
    for block in range(rank.index, num_blocks(total, task.block_rows), rank.count):
        start, stop = block_range(block, task.block_rows, total)
        logits = forward.logits(forward.normalized(feed.images(start, stop))).float().cpu().numpy()
        if not np.isfinite(logits).all():
            raise UnitError(
                f"training diverged: the network's output is not finite after epoch {epoch}; lower train.lr "
                f"({task.train.lr:g}) or set train.precision=float32"
            )
        name = f"{task.folder}/{trajectory_name(epoch, block)}"
        task.store.publish(name, encode(name, trajectory_table(logits, task.catalog.label[start:stop]), "{}"))
