"""What a run trains or takes as trained, and which of it its scores need."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from rayclean.catalog.looks import FeatureSource
from rayclean.cluster.sizing import Workers
from rayclean.config import MAIN
from rayclean.embed.feature_space import FeatureSpaceJob, feature_space_job
from rayclean.embed.table import Space
from rayclean.run.once import once
from rayclean.run.roles import HeadsRole, NetworkRole, Role, Roles
from rayclean.run.rows import Rows
from rayclean.run.walks import Walk, plan_walks
from rayclean.schema import JOINT
from rayclean.train.old_heads import find_old_heads
from rayclean.train.snapshots import Snapshot


@dataclass
class Networks(Rows):
    """The roles of a run and their snapshots.

    Attributes:
        workers: of `cpu`, `gpu` and `train`.
        precision: of training and of scoring, resolved.
        known: roles that are known to be trained; a start does not look for their files again.
        features: how features are had, in starts that may look at shards; None otherwise, and without features.
        old: the run on features that `train.from` names, whose heads judge these rows; None without.
    """

    workers: dict[str, Workers]
    precision: tuple[str, str]
    known: set[str] = field(default_factory=set)
    features: FeatureSource | None = None
    old: Self | None = None

    @cached_property
    def roles(self) -> Roles:
        """The training runs, `main` first."""

        def role(name: str) -> Role:
            catalog = self.planted.get(name, self.catalog)
            shared = name, self.config, self.store, catalog, self.workers, self.precision
            return HeadsRole(*shared, self.space) if self.config.on_features else NetworkRole(*shared)

        return Roles((name, role(name)) for name in self.config.role_names())

    @once
    def without(self, names: frozenset[str]) -> Self:
        """The run as far as it goes without some roles, whose networks are not trained yet."""
        found = replace(self)
        found.__dict__["roles"] = Roles((name, role) for name, role in self.roles.items() if name not in names)
        return found

    @cached_property
    def space(self) -> FeatureSpaceJob:
        """The features that are there, of a run on features."""
        source = self.config.train.from_
        old = None if source is None else find_old_heads(source, MAIN)
        return feature_space_job(self.catalog, self.config.run.seed, self.config.blocks.rows, old)

    @property
    def main(self) -> Role:
        """The network, or the heads, whose beliefs are scored."""
        return self.roles[MAIN]

    @cached_property
    def walks(self) -> tuple[Walk, ...]:
        """All paths that the scores need."""
        return plan_walks(self.config, self.roles)

    def walks_of(self, score: str) -> tuple[Walk, ...]:
        """The walks of one score, in order of their epochs."""
        return tuple(walk for walk in self.walks if walk.score == score)

    @cached_property
    def voted(self) -> tuple[Snapshot, ...]:
        """Snapshots whose neighbours vote, in order of their epochs; the last one, for the evidence, always.

        The joint model asks those of the first snapshot which of the walked ones to trust.
        """
        epochs = {*self.config.neighbors.vote_epochs, self.main.last.epoch}
        if self.is_joint:
            epochs.add(min(walk.snapshot.epoch for walk in self.walks) if self.walks else self.main.last.epoch)
        return tuple(snapshot for snapshot in self.main.trained.snapshots if snapshot.epoch in epochs)

    @property
    def is_joint(self) -> bool:
        """Whether the merge is that of all beliefs."""
        return self.config.merge_score() == JOINT

    @cached_property
    def others(self) -> dict[str, Space]:
        """Of the other networks that learned the given labels, the last snapshot: the joint model may believe them.

        On features it believes heads that have not seen the labels.
        """
        if self.config.on_features:
            return {}
        roles = {name: role for name, role in self.roles.items() if name != MAIN and name not in self.planted}
        return {name: role.embed(role.last) for name, role in roles.items()} if self.is_joint else {}

    @property
    def network(self) -> NetworkRole:
        """Role `main` of a run on images."""
        if not isinstance(self.main, NetworkRole):
            raise TypeError("a run on images expected")
        return self.main

    @property
    def heads(self) -> HeadsRole:
        """Role `main` of a run on features."""
        if not isinstance(self.main, HeadsRole):
            raise TypeError("a run on features expected")
        return self.main
