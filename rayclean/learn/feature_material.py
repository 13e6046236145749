"""Learning from features: a linear layer, trained as heads are [our choice]."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rayclean.catalog.features import RowFeatures, StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.config import DivideMixSection, InfluenceSection, TrainSection
from rayclean.embed.feature_space import FeatureSpaceJob
from rayclean.embed.heads_stage import head_embed_job
from rayclean.embed.table import Space
from rayclean.errors import ConfigError, InputError
from rayclean.learn.decay import DecayJob
from rayclean.learn.lesson_jobs import lesson_folder
from rayclean.learn.material import Material, Tuned
from rayclean.learn.phase import Exam
from rayclean.schema import Array
from rayclean.storage.fingerprint import digest
from rayclean.train.feature_feed import FeatureFeedSettings
from rayclean.train.feed import FeedSettings
from rayclean.train.head_loop import MOMENTUM
from rayclean.train.inputs import FeatureInputs
from rayclean.train.snapshots import Snapshot
from rayclean.train.spec import NetworkSpec, feature_spec
from rayclean.train.stage import head_settings
from rayclean.train.task import feed_settings, image_fields

DIVIDEMIX_RATE: float = DivideMixSection.model_fields["lr"].default


@dataclass(frozen=True)
class FeatureMaterial(Material):
    """Standardized features.

    Attributes:
        space: their statistics, which are there.
    """

    space: FeatureSpaceJob

    @cached_property
    def spec(self) -> NetworkSpec:
        """A linear layer."""
        return feature_spec(_width(self.catalog), self.catalog.num_classes)

    @cached_property
    def train(self) -> TrainSection:
        """As heads are trained, but for `learn.train`.

        Raises:
            ConfigError: features are to be augmented.
        """
        base, own = self.config.train_to_learn(), self.config.learn.train
        if own.get("augment", "none") != "none":
            raise ConfigError(
                f"learn.train.augment: found {own['augment']}, but features are not augmented; leave it out"
            )
        usual: dict[str, Any] = {"augment": "none", "epochs": head_settings(base).epochs_of(self.catalog.num_rows)}
        if not {"schedule", "milestones"} & set(own):
            usual |= {"schedule": "cosine", "milestones": []}
        if base.optimizer == "sgd":
            usual |= {"lr": self.space.features.rate, "momentum": MOMENTUM, "weight_decay": base.weight_decays[0]}
        return base.changed(usual, own)

    @property
    def inputs(self) -> FeatureInputs:
        """Features by the statistics of the run's."""
        return FeatureInputs(self.space.folder)

    @property
    def weights(self) -> None:
        """None: those of the section are the frozen network's."""
        return

    def exam(self, name: str, catalog: Catalog, rows: Array) -> Exam:
        """See `Material`.

        Raises:
            InputError: its features are of another network.
        """
        if (found := _width(catalog)) != self.spec.num_values:
            raise InputError(
                f"{name} samples have {found} features, those of the run have {self.spec.num_values}; give features of "
                "one network for both (learn.test, influence.validation)"
            )
        return super().exam(name, catalog, rows)

    def feed(self, batch_size: int, purpose: str) -> FeedSettings:
        """See `Material`."""
        images = feed_settings(self.config, self.spec.size, batch_size, purpose)
        return FeatureFeedSettings(**vars(images), inputs=self.inputs)

    def embed(self, snapshot: Snapshot, catalog: Catalog) -> Space:
        """See `Material`."""
        source, blocks = StandardFeatures(RowFeatures(catalog), self.space.folder), self.config.blocks
        return head_embed_job(catalog, snapshot, source, self.forward.device, blocks.rows, after=self.space)

    def fields(self, feed: FeedSettings) -> dict[str, Any]:
        """See `Material`."""
        return {"model": self.spec.name, "statistics": self.space.folder, **image_fields(self.spec, feed)}

    def divided(self, section: DivideMixSection) -> DivideMixSection:
        """At the rate of heads, where none is given."""
        is_usual = section.lr == DIVIDEMIX_RATE
        return section.model_copy(update={"lr": min(section.lr, self.space.features.rate)}) if is_usual else section

    def damped(self, settings: InfluenceSection, weight_decay: float) -> InfluenceSection:
        """At least the decay, which is part of the loss's curvature."""
        return settings.model_copy(update={"damping": max(settings.damping, weight_decay)})

    def tuned(self, train: TrainSection, lesson: str | None, known: Exam | None) -> Tuned:
        """With the weight decay of `train.weight_decays` that heads learn the lesson best by, where none is given."""
        heads = replace(head_settings(self.train), head="linear")
        is_given = "weight_decay" in self.config.learn.train or train.optimizer != "sgd"
        if is_given or len(heads.weight_decays) == 1:
            return Tuned(train, None)
        seed, device = self.config.run.seed, self.forward.device
        judges = None if known is None else [known.catalog.fingerprint, digest(known.rows.tobytes())]
        fields = {"heads": asdict(heads), "seed": seed, "known": judges}
        folder = lesson_folder("decay", fields, [self.catalog.fingerprint, self.space.folder, lesson or ""])
        shared = self.catalog.store, folder, self.space.features, lesson, heads, seed, known, device
        return Tuned(train, DecayJob(*shared, after=(self.space,)))


def _width(catalog: Catalog) -> int:
    found: int = RowFeatures(catalog).read(np.zeros(1, np.int64)).shape[1]
    return found
