"""The training loop of one rank: plain torch on batches that its caller makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayclean.config import TrainSection
from rayclean.late import dist, torch
from rayclean.train.augment import augment_float, augment_uint8
from rayclean.train.batches import Batch
from rayclean.train.losses import training_loss
from rayclean.train.optimizer import learning_rate, make_optimizer, set_rate
from rayclean.train.plan import epoch_seed, steps_of
from rayclean.train.precision import autocast
from rayclean.train.spec import NetworkSpec

if TYPE_CHECKING:
    from rayclean.train.models import Network

State = dict[str, Any]


@dataclass(frozen=True)
class Rank:
    """Who this process is among the training workers."""

    index: int
    count: int


@dataclass(frozen=True)
class LoopSettings:
    """How a network is trained.

    Attributes:
        seed: of augmentation, MixUp and dropout.
        rank_rows: rows that a rank sees in an epoch.
        precision: of the forward and backward passes.
        device: where the network lives.
        threads: of torch.
        stop: the epoch to end after, where not `train.epochs`, which the rate follows.
    """

    train: TrainSection
    spec: NetworkSpec
    seed: int
    rank_rows: int
    precision: str
    device: str
    threads: int
    stop: int | None = None


def train_epochs(
    settings: LoopSettings,
    network: Network,
    batches: Callable[[int], Iterator[Batch]],
    rank: Rank,
    state: State | None = None,
    again: bool = False,
) -> Iterator[tuple[int, Network, State]]:
    """Trains from `state`, or from the start, and hands over after each epoch.

    Args:
        settings: how.
        network: as it is before the first step.
        batches: those of an epoch, for this rank.
        rank: this process.
        state: what an earlier start handed over last; None at the start.
        again: whether the epoch of `state` is handed over once more, before the first new one.

    Yields:
        The epoch, the bare network with the buffers of rank 0, and the state to go on from.
    """
    torch.set_num_threads(settings.threads)
    # Some of CUDA's kernels have no deterministic form: there it warns and goes on.
    torch.use_deterministic_algorithms(True, warn_only=settings.device != "cpu")
    network = network.to(torch.device(settings.device)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, settings.train)
    first = 1
    if state is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
        if again:
            yield state["epoch"], network, state
    last = settings.train.epochs if settings.stop is None else settings.stop
    if first > last:
        return
    wrapped = network if rank.count == 1 else torch.nn.parallel.DistributedDataParallel(network)
    with memory_as_it_comes():
        for epoch in range(first, last + 1):
            wrapped.train()
            _train_epoch(settings, wrapped, optimizer, batches(epoch), epoch, rank)
            same_buffers(network, rank)
            yield epoch, network, {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}


@contextmanager
def memory_as_it_comes() -> Iterator[None]:
    """No NaN is written to memory that kernels fill anyway.

    Torch does so where its algorithms are deterministic, to show who reads what nobody wrote: 6% of training on a CPU.
    """
    settings: Any = torch.utils.deterministic  # a module whose class holds the setting, unknown to mypy
    fills = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fills


def _train_epoch(
    settings: LoopSettings,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    epoch: int,
    rank: Rank,
) -> None:
    """One pass over the rank's batches. Every draw comes from (seed, epoch, rank), so an epoch repeats."""
    device, train, spec = torch.device(settings.device), settings.train, settings.spec
    generator = torch.Generator().manual_seed(epoch_seed(settings.seed, epoch, rank.index, "batches"))
    # Dropout draws from torch's global generator alone.
    torch.manual_seed(epoch_seed(settings.seed, epoch, rank.index, "dropout"))
    steps = steps_of(settings.rank_rows, train.batch_size)
    for step, (images, labels, weights) in enumerate(batches):
        # By the share of the whole training, in epochs: the rate does not depend on the number of ranks.
        set_rate(optimizer, learning_rate(train, (epoch - 1 + step / steps) / train.epochs))
        pixels = augment_uint8(images, train.augment, generator)
        inputs = augment_float(spec.inputs(pixels), train.augment, generator)
        inputs = inputs.to(device, memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with autocast(settings.precision, device.type):
            counts = None if weights is None else weights.to(device)
            loss = training_loss(train.loss, network, inputs, labels.to(device), train.mixup_alpha, generator, counts)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def same_buffers(network: torch.nn.Module, rank: Rank) -> None:
    """Gives every rank the BatchNorm buffers of rank 0: after the last step they differ, and so would scores."""
    if rank.count > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)
