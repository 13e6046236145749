"""A role: one training run inside a run, its snapshots and their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rayclean.catalog.table import Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config
from rayclean.embed.stage import EmbedJob, embed_job
from rayclean.run.once import once
from rayclean.shards.access import PixelSettings
from rayclean.storage.store import Store
from rayclean.train.forward import ForwardSettings
from rayclean.train.snapshots import Snapshot
from rayclean.train.stage import Trained, find_trained, train_task
from rayclean.train.worker import TrainTask


@dataclass
class Role:
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

    @cached_property
    def task(self) -> TrainTask:
        """What it trains."""
        return train_task(self.config, self.store, self.catalog, self.precision, self.workers["train"], self.name)

    @cached_property
    def trained(self) -> Trained:
        """What it gave, once it is finished."""
        return find_trained(self.task)

    @property
    def last(self) -> Snapshot:
        """Its last snapshot."""
        return self.trained.snapshots[-1]

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
        """What one of its snapshots makes of the rows that it was trained on, or of those of another catalog."""
        return embed_job(
            catalog or self.catalog,
            snapshot,
            self.trained.spec,
            self.forward,
            self.pixels,
            self.config.blocks.rows,
        )


class NotTrained(Exception):
    """What is asked for comes from a role that is not trained yet."""


class Roles(dict[str, Role]):
    """Training runs by their names."""

    def __missing__(self, name: str) -> Role:
        """Raises NotTrained."""
        raise NotTrained(name)
