"""The sections of single scores: neighbours, IOFM, INN, influence, simulated loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rayclean.config.sections import Positive, Section, Share


class NeighborsSection(Section):
    """The search for near rows, and their vote."""

    pool: Positive | None = None
    """Search for neighbours of the same label among so many random rows of it, as IOFM's paper offers; faster past
    10^7 rows of one label, less exact."""
    recall_target: Share = 0.95
    """Share of the true neighbours that an approximate search must find, on a sample; the recall is recorded."""
    # IVF, its making included, then takes about a third of flat search; below it seconds are saved at most, and flat
    # is exact. Measured: docs/results/neighbors.md.
    ivf_rows: Positive = 20_000
    """Searches among so many rows or more are approximate (IVF, on CPUs), smaller ones exact. Where GPUs search, more
    may pay."""
    vote_num: Positive = 30
    """Nearest rows of any label that vote. More are better where noise is spread evenly (docs/results/scores.md)."""
    vote_epochs: list[Positive] = Field(default=[])
    """Snapshots whose neighbours vote beside the last one's, for the curve of `vote` over epochs."""


class IofmSection(Section):
    """IOFM: L neighbours with the same label, paths of H steps."""

    num: Positive = 6
    """L. The paper has 10, with H = 3 three times as many forwards, which gain .002 at most
    (docs/results/paths.md)."""
    steps: int = Field(default=2, ge=2)
    """H. The paper has 3."""


class InnSection(Section):
    """INN: L neighbours of any label, near by the features of another network, paths of H steps."""

    num: Positive = 6
    """L. The paper has 10."""
    steps: int = Field(default=2, ge=2)
    """H. The paper has 10."""
    features: str = "ce"
    """What decides who is near: a role, `self` for the scoring network's own features, or `file:PATH` for those of
    another tool (Parquet: `key`, `features`, and `shard` where keys repeat). A run on features has its own."""
    epochs: list[Positive] | None = None
    """Snapshots that are scored, for curves; without it the last one alone. The score is that of the last of them."""
    end_points: bool = True
    """Count a path's two ends too; `false` with `steps: 2` is the midpoint score."""

    @property
    def file(self) -> str | None:
        """The file of features, where `features` names one."""
        kind, colon, path = self.features.partition(":")
        return path if kind == "file" and colon else None


class InfluenceSection(Section):
    """Influential Rank's OSM and OSD on the last layer; for runs whose `scores` name `osm` or `osd`."""

    role: str = "main"
    """The training run whose last layer it is."""
    damping: float = Field(default=0.01, gt=0)
    """Added to the Hessian's diagonal. An over-fitted network's Hessian is near 0; the record then says that the
    damping decides."""
    hessian_rows: Positive = 10_000
    """Rows that the Hessian is taken over; seeded."""
    probes: Positive = 200
    """Random probes m of the norm where the Hessian is too large to invert (over 8,000 parameters); the error falls
    with sqrt(2 / m) and is recorded."""
    validation: str | list[str] | None = None
    """Verified samples, which `osd` needs: shards of their own, or `split` for a fixed seeded part of the data that is
    then neither trained on nor scored."""
    validation_label: str | None = None
    """Where the verified samples' labels are, as `data.label` says it (the default); never `data.truth`."""
    validation_num: Positive = 5
    """Verified samples per class that are used."""
    gamma: Annotated[int, Field(ge=0)] | Share = 0.8
    """Classes that must call a label noisy before its row goes, a number or a share. The paper has half of them where
    more than 40% of the labels are wrong. 0: by OSM alone."""
    standardize: Literal["samples", "classes"] = "samples"
    """OSD's z-scores are taken over all samples for each class, or, as the paper reads literally, over the classes."""
    epochs: list[Positive] = Field(default=[])
    """Snapshots beside the last one, for the curves of `osm` and `osd`; the scores are those of the last."""

    @property
    def held_out(self) -> int:
        """Rows of each class that are kept apart."""
        return self.validation_num if self.validation == "split" else 0


class SimulatedLossSection(Section):
    """ODD: the loss that uniformly random labels would have, simulated from the last layer."""

    role: str = "main"
    """The training run whose losses are judged."""
    epoch: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 0.375
    """When: an epoch, or a share of the role's epochs, while the learning rate is still high. Its weights are always
    kept."""
    percentile: float = Field(default=10.0, ge=0, le=100)
    """Rows whose loss is above this percentile of the simulated losses would be dropped; a low one."""
    average: Positive = 3
    """Epochs up to `epoch` whose mean loss is judged."""
    kind: Literal["gauss", "gauss_pooled", "empirical"] = "gauss"
    """Features of the simulation: rectified standard normal (the paper), rectified normal with each feature's own mean
    and deviation, or real features of random rows. The run says where the chosen one does not fit."""
    planted: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the rows whose label is drawn uniformly in role `plant`, where `train.roles` names it: their losses
    tell whether the simulation holds."""

    def epoch_of(self, num_epochs: int) -> int:
        """E, 1..num_epochs: a share is rounded half up, to at least 1; .375 of 40 epochs is 15."""
        return self.epoch if isinstance(self.epoch, int) else max(int(self.epoch * num_epochs + 0.5), 1)
