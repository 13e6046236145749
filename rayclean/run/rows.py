"""The rows of a run: as the shards have them, as it trains on and scores them, with labels planted, verified ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rayclean.catalog.derive_stage import Derivation, derived_mark
from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import open_catalog
from rayclean.catalog.table import Catalog
from rayclean.config import PLANT, THRESHOLDED, Config, NoiseSection
from rayclean.storage.store import Store
from rayclean.train.plan import role_seed
from rayclean.train.spec import network_spec


@dataclass
class Rows:
    """The catalogs of a run.

    Attributes:
        source: the rows as the shards have them.
        validation: verified samples, from shards of their own; None without.
    """

    config: Config
    store: Store
    source: Catalog
    validation: Catalog | None

    @cached_property
    def classes(self) -> ClassList:
        """The classes' names."""
        source, pair = self.source_classes, self.config.noise.classes
        return source if pair is None else ClassList(tuple(source.names[label] for label in pair))

    @cached_property
    def source_classes(self) -> ClassList:
        """The classes' names in the shards."""
        return ClassList.of(self.config.data)

    def derivation(self, keeps: str) -> Derivation:
        """How rows and labels differ from the shards': of the rest, or of the verified rows kept apart."""
        config = self.config
        size = network_spec(config, self.source_classes.num_classes).size
        # Part of the name alone: before, `truth` was what its rows were kept apart by where there was one.
        base = "truth" if config.data.truth is None else "label"
        held_out, max_pixels = config.influence.held_out, config.data.max_pixels
        none_by_truth = config.noise.is_on and config.data.truth is not None
        return Derivation(
            config.noise, config.run.seed, held_out, keeps, size, max_pixels, base, none_by_truth=none_by_truth
        )

    @cached_property
    def derived(self) -> dict[str, Catalog]:
        """Catalogs that are made from the source: `rest`, which is then the run's, and `held_out`."""
        held_out = self.config.influence.held_out
        if not (self.config.noise.is_on or held_out):
            return {}
        marks = {
            keeps: derived_mark(self.source, self.derivation(keeps))
            for keeps in (("rest", "held_out") if held_out else ("rest",))
        }
        return {keeps: open_catalog(self.store, mark) for keeps, mark in marks.items()}

    @cached_property
    def catalog(self) -> Catalog:
        """The rows that are trained on and scored."""
        return self.derived.get("rest", self.source)

    def planting(self, role: str) -> Derivation | None:
        """How a role's labels differ from the given ones; None for roles that train on these."""
        seed, planted = self.config.run.seed, self.config.simulated_loss.planted
        if role == PLANT:
            seed = role_seed(seed, PLANT)  # apart from noise made on purpose, which the same rows would else have
            return Derivation(NoiseSection(kind="symmetric", rate=planted), seed, 0, "rest", 0, 0, base="label")
        if role in THRESHOLDED:
            part = THRESHOLDED.index(role)
            return Derivation(NoiseSection(), seed, 0, "rest", 0, 0, base="label", threshold_part=part)
        return None

    @cached_property
    def planted(self) -> dict[str, Catalog]:
        """The rows of roles whose labels differ from the given ones."""
        plans = {name: self.planting(name) for name in self.config.role_names()}
        return {
            name: open_catalog(self.store, derived_mark(self.catalog, plan))
            for name, plan in plans.items()
            if plan is not None
        }
