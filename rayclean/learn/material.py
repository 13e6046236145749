"""What new networks learn from: images, or features that a frozen network or another tool has made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rayclean.catalog.table import Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config, DivideMixSection, InfluenceSection, TrainSection
from rayclean.embed.stage import embed_job
from rayclean.embed.table import Space
from rayclean.learn.decay import DecayJob
from rayclean.learn.phase import Exam
from rayclean.schema import Array
from rayclean.shards.access import PixelSettings
from rayclean.train.feed import FeedSettings
from rayclean.train.forward import ForwardSettings
from rayclean.train.inputs import ImageInputs, Inputs
from rayclean.train.snapshots import Snapshot
from rayclean.train.spec import NetworkSpec, network_spec
from rayclean.train.task import feed_settings, image_fields


class Tuned(NamedTuple):
    """How a lesson is trained on, and the job that has said so; None where nothing was open."""

    train: TrainSection
    choice: DecayJob | None


@dataclass(frozen=True)
class Material(ABC):
    """What networks learn from.

    Attributes:
        config: of the run, with `learn`.
        catalog: the rows.
        workers: settled pools.
        precision: of training and of scoring.
    """

    config: Config
    catalog: Catalog
    workers: dict[str, Workers]
    precision: tuple[str, str]

    @property
    @abstractmethod
    def spec(self) -> NetworkSpec:
        """The networks."""

    @property
    @abstractmethod
    def train(self) -> TrainSection:
        """How new networks are trained."""

    @property
    @abstractmethod
    def inputs(self) -> Inputs:
        """How rows of any catalog are read."""

    @property
    @abstractmethod
    def weights(self) -> str | None:
        """What new networks start from; None where they are drawn."""

    @abstractmethod
    def feed(self, batch_size: int, purpose: str) -> FeedSettings:
        """How what is trained on is read, with draws for a purpose."""

    @abstractmethod
    def embed(self, snapshot: Snapshot, catalog: Catalog) -> Space:
        """What a network makes of a catalog's rows."""

    @abstractmethod
    def fields(self, feed: FeedSettings) -> dict[str, Any]:
        """What a training's name holds of its network and of what it sees."""

    @abstractmethod
    def divided(self, section: DivideMixSection) -> DivideMixSection:
        """DivideMix's settings, with what is left open."""

    @abstractmethod
    def damped(self, settings: InfluenceSection, weight_decay: float) -> InfluenceSection:
        """How influence is computed of networks of a weight decay."""

    @abstractmethod
    def tuned(self, train: TrainSection, lesson: str | None, known: Exam | None) -> Tuned:
        """How a lesson is trained on, where that depends on it; `known`: verified samples."""

    def exam(self, name: str, catalog: Catalog, rows: Array) -> Exam:
        """Some rows of a catalog, to be examined on."""
        return Exam(name, catalog, rows, self.inputs)

    @cached_property
    def forward(self) -> ForwardSettings:
        """How networks are run when they score."""
        return ForwardSettings(self.workers["gpu"].device, self.precision[1], self.config.score.batch_size)


@dataclass(frozen=True)
class ImageMaterial(Material):
    """Images."""

    @cached_property
    def spec(self) -> NetworkSpec:
        """That of the role that is learned from."""
        return network_spec(self.config, self.catalog.num_classes, self.config.learn_role)

    @cached_property
    def train(self) -> TrainSection:
        """As the role, but for `learn.train`."""
        return self.config.train_to_learn()

    @property
    def pixels(self) -> PixelSettings:
        """How images are read."""
        return PixelSettings(self.config.data.max_pixels, self.config.data.node_cache_bytes)

    @property
    def inputs(self) -> Inputs:
        """Images of the network's size."""
        return ImageInputs(self.spec.size, self.pixels)

    @property
    def weights(self) -> str | None:
        """Those of the section."""
        return self.config.model_of(self.config.learn_role).weights

    def feed(self, batch_size: int, purpose: str) -> FeedSettings:
        """See `Material`."""
        return feed_settings(self.config, self.spec.size, batch_size, purpose)

    def embed(self, snapshot: Snapshot, catalog: Catalog) -> Space:
        """See `Material`."""
        return embed_job(catalog, snapshot, self.spec, self.forward, self.pixels, self.config.blocks.rows)

    def fields(self, feed: FeedSettings) -> dict[str, Any]:
        """See `Material`."""
        model = self.config.model_of(self.config.learn_role).model_dump(exclude={"size"})
        return {"model": model, **image_fields(self.spec, feed)}

    def divided(self, section: DivideMixSection) -> DivideMixSection:
        """As it is."""
        return section

    def damped(self, settings: InfluenceSection, weight_decay: float) -> InfluenceSection:
        """As it is: the decay of a whole network is small beside the damping."""
        return settings

    def tuned(self, train: TrainSection, lesson: str | None, known: Exam | None) -> Tuned:
        """As it is: to try several would be as many trainings."""
        return Tuned(train, None)
