"""A role: one training run inside a run, of a network or of heads, its snapshots and what they make of the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from rayclean.catalog.features import RowFeatures, StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config
from rayclean.embed.feature_space import FeatureSpaceJob
from rayclean.embed.heads_stage import BlindJob, HeadEmbedJob, blind_job, head_embed_job
from rayclean.embed.stage import EmbedJob, embed_job
from rayclean.embed.table import Space
from rayclean.run.once import once
from rayclean.shards.access import PixelSettings
from rayclean.storage.store import Store
from rayclean.train.forward import ForwardSettings
from rayclean.train.heads_worker import HeadsTask
from rayclean.train.snapshots import Snapshot
from rayclean.train.spec import NetworkSpec, network_spec
from rayclean.train.stage import Trained, TrainJob, find_trained, heads_task, train_task
from rayclean.train.task import RoleTask
from rayclean.train.worker import TrainTask


@dataclass
class Role(ABC):
    """One training run.

    Attributes:
        precision: of training and of scoring, resolved.
    """

    name: str
    config: Config
    store: Store
    catalog: Catalog
    workers: dict[str, Workers]
    precision: tuple[str, str]

    @property
    @abstractmethod
    def task(self) -> RoleTask:
        """What it trains."""

    @property
    @abstractmethod
    def job(self) -> TrainJob:
        """Its training."""

    @abstractmethod
    def embed(self, snapshot: Snapshot, catalog: Catalog | None = None) -> Space:
        """What one of its snapshots makes of the rows that it was trained on, or of those of another catalog."""

    @abstractmethod
    def near(self, snapshot: Snapshot) -> Space:
        """What says which rows are near at a snapshot."""

    @cached_property
    def trained(self) -> Trained:
        """What it gave, once it is finished."""
        return find_trained(self.task)

    @property
    def last(self) -> Snapshot:
        """Its last snapshot."""
        return self.trained.snapshots[-1]

    @property
    @abstractmethod
    def usual_epochs(self) -> tuple[int, ...]:
        """Epochs whose snapshots IOFM is the mean over."""


@dataclass
class NetworkRole(Role):
    """A network that is trained on images."""

    @cached_property
    def task(self) -> TrainTask:
        """What it trains."""
        return train_task(self.config, self.store, self.catalog, self.precision, self.workers["train"], self.name)

    @property
    def job(self) -> TrainJob:
        """Its training."""
        return TrainJob(self.store, self.task.folder, self.task, self.workers["train"])

    @property
    def usual_epochs(self) -> tuple[int, ...]:
        """As configured."""
        return self.config.train_of(self.name).snapshot_epochs()

    @cached_property
    def spec(self) -> NetworkSpec:
        """Its network."""
        return network_spec(self.config, self.catalog.num_classes, self.name)

    @cached_property
    def forward(self) -> ForwardSettings:
        """How its network is run when it scores."""
        return ForwardSettings(self.workers["gpu"].device, self.precision[1], self.config.score.batch_size)

    @property
    def pixels(self) -> PixelSettings:
        """How its images are read when it scores."""
        return PixelSettings(self.config.data.max_pixels, self.config.data.node_cache_bytes)

    @once
    def embed(self, snapshot: Snapshot, catalog: Catalog | None = None) -> EmbedJob:
        """See `Role`: its features and logits."""
        rows, block_rows = catalog or self.catalog, self.config.blocks.rows
        return embed_job(rows, snapshot, self.spec, self.forward, self.pixels, block_rows)

    def near(self, snapshot: Snapshot) -> EmbedJob:
        """Its own features."""
        return self.embed(snapshot)


@dataclass
class HeadsRole(Role):
    """Heads that are trained on features.

    Attributes:
        space: of the features.
    """

    space: FeatureSpaceJob

    def features_of(self, catalog: Catalog) -> StandardFeatures:
        """Those of a catalog's rows, by the statistics of the run's."""
        return StandardFeatures(RowFeatures(catalog), self.space.folder)

    @cached_property
    def task(self) -> HeadsTask:
        """What it trains."""
        return heads_task(self.config, self.store, self.features_of(self.catalog), self.workers["train"], self.name)

    @property
    def job(self) -> TrainJob:
        """Its training, after the statistics of the features."""
        return TrainJob(self.store, self.task.folder, self.task, self.workers["train"], after=(self.space,))

    @property
    def usual_epochs(self) -> tuple[int, ...]:
        """All that are kept but ODD's."""
        return self.task.usual_epochs()

    @property
    def device(self) -> str:
        """Where heads score."""
        return self.workers["gpu"].device

    @once
    def embed(self, snapshot: Snapshot, catalog: Catalog | None = None) -> HeadEmbedJob:
        """See `Role`: the logits of the head that has seen all labels."""
        rows = catalog or self.catalog
        return head_embed_job(
            rows, snapshot, self.features_of(rows), self.device, self.config.blocks.rows, after=self.space
        )

    def near(self, snapshot: Snapshot) -> FeatureSpaceJob:
        """The features, whatever the heads have learned."""
        return self.space

    @cached_property
    def blind(self) -> BlindJob:
        """What its heads make of the rows whose labels they have not seen."""
        return blind_job(self.task, self.last, self.device, after=self.space)


class NotTrained(Exception):
    """What is asked for comes from a role that is not trained yet."""


class Roles(dict[str, Role]):
    """Training runs by their names."""

    def __missing__(self, name: str) -> Role:
        """Raises NotTrained."""
        raise NotTrained(name)
