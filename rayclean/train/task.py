"""What all trainings on Ray Train's workers have in common: a role's, and the phases of learning with the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayclean.catalog.table import Catalog
from rayclean.config import Config, TrainSection
from rayclean.late import torch
from rayclean.storage.executor import Report
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks
from rayclean.train.batches import Lesson
from rayclean.train.feed import Feed, FeedSettings
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.loop import LoopSettings, Rank
from rayclean.train.plan import role_seed
from rayclean.train.snapshots import publish_weights, snapshot_name
from rayclean.train.spec import NetworkSpec
from rayclean.train.weights import load_weights_from

if TYPE_CHECKING:
    from rayclean.train.models import Network


@dataclass(frozen=True, kw_only=True)
class RoleTask(ABC):
    """The training of a role, of a network or of heads: picklable, the same on every rank.

    Attributes:
        role: its name.
        store: the run's files.
        folder: `train-<role>-<fingerprint>`, below which its checkpoints lie, and all that it gives.
        catalog: the rows, with their labels.
        block_rows: rows of a block of trajectories.
    """

    role: str
    store: Store
    folder: str
    catalog: Catalog
    block_rows: int

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Epochs in all; 0 for weights that are taken as they are."""

    @abstractmethod
    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs after which weights are published as snapshots."""

    @abstractmethod
    def missing_of(self, epoch: int) -> set[str]:
        """Files of an epoch that are not there."""

    @abstractmethod
    def results(self) -> str:
        """The folder of the snapshots and trajectories that are the role's."""

    @abstractmethod
    def publish_untrained(self) -> None:
        """Publishes the weights of a role without epochs."""

    @abstractmethod
    def run(self, rank: Rank, resume: Resume, report: Report) -> None:
        """Trains on one rank; see `TrainFunction`."""


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What training workers do: picklable, the same on every rank.

    Attributes:
        store: the run's files.
        folder: below which its checkpoints lie, and what it gives.
        catalog: the rows.
        spec: the network.
        train: how it is trained, and with `from` which weights it starts from.
        weights: those of `model.weights`, for a new network.
        feed: how training images are read; its seed is that of all draws.
        forward: how the network is run when it is judged.
        precision: of the forward and backward passes, resolved.
        block_rows: rows of a block of trajectories.
        threads: of torch.
    """

    store: Store
    folder: str
    catalog: Catalog
    spec: NetworkSpec
    train: TrainSection
    weights: str | None
    feed: FeedSettings
    forward: ForwardSettings
    precision: str
    block_rows: int
    threads: int

    def new_network(self, seed: int | None = None) -> Network:
        """The network before the first step: drawn from a seed, that of the feed by default, or from elsewhere."""
        network = self.spec.build(self.feed.seed if seed is None else seed, self.weights)
        if self.train.from_ is not None:
            load_weights_from(self.train.from_, network)
        return network

    def loop(self, rank: Rank, num_rows: int, stop: int) -> LoopSettings:
        """How one rank of them trains on so many rows up to an epoch."""
        return LoopSettings(
            train=self.train,
            spec=self.spec,
            seed=self.feed.seed,
            rank_rows=num_blocks(num_rows, rank.count),
            precision=self.precision,
            device=self.forward.device,
            threads=self.threads,
            stop=stop,
        )

    def open_feed(self, rank: Rank, lesson: Lesson | None = None) -> Feed:
        """Batches of one rank; of all rows with their given labels where there is no lesson."""
        return self.feed.open(self.catalog, rank.index, rank.count, lesson)

    def forward_of(self, network: Network) -> Forward:
        """A network of it, bare, run for scoring."""
        return Forward(network, self.spec, self.forward)

    def snapshot_file(self, epoch: int) -> str:
        """Weights after an epoch."""
        return f"{self.folder}/{snapshot_name(epoch)}"

    def publish_snapshot(self, epoch: int, network: torch.nn.Module) -> None:
        """Writes the weights after an epoch."""
        publish_weights(self.store, self.snapshot_file(epoch), network)


def feed_settings(config: Config, size: int, batch_size: int, purpose: str) -> FeedSettings:
    """How images of a size are read for a training whose draws are for a purpose, such as a role."""
    data = config.data
    return FeedSettings(
        size=size,
        max_pixels=data.max_pixels,
        cache_bytes=data.cache_bytes,
        shuffle_rows=data.shuffle_rows,
        batch_size=batch_size,
        seed=role_seed(config.run.seed, purpose),
        node_cache_bytes=data.node_cache_bytes,
    )


def train_fields(train: TrainSection, *elsewhere: str) -> dict[str, Any]:
    """What a training's name holds of its settings: all that its weights depend on and that is not said elsewhere."""
    left_out = {"workers", "precision", "from_", "roles", "folds", "weight_decays", "head", *elsewhere}
    left_out |= set() if train.schedule == "step" else {"milestones", "decay"}
    return train.model_dump(exclude=left_out)


def image_fields(spec: NetworkSpec, feed: FeedSettings) -> dict[str, Any]:
    """What a training's name holds of how images come to the network, and in which order."""
    return {
        "spec": [spec.size, spec.mean, spec.std],
        "feed": [feed.cache_bytes, feed.shuffle_rows, feed.seed],
    }
