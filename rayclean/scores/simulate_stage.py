"""ODD of a role: the losses of random labels simulated once, then all rows judged, one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.noise import drawn_to_flip
from rayclean.catalog.table import Catalog
from rayclean.config import SimulatedLossSection
from rayclean.embed.table import Embedding, Space
from rayclean.schema import Array
from rayclean.scores.simulated_loss import (
    NUM_DRAWS,
    agreement,
    follows,
    odd_drop,
    odd_score,
    quantile_of,
    simulated_losses,
    threshold,
)
from rayclean.storage.contents import map_arrays
from rayclean.storage.draws import smallest_draws
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range
from rayclean.train.snapshots import Snapshot
from rayclean.train.trajectories import read_trajectory

VERSION = 1
SIMULATED, ROWS, CHECK = "simulated", "rows", "planted"
QUANTILES = np.linspace(0.05, 0.95, 19)
FEATURE_ROWS = 10_000  # real features that `gauss_pooled` and `empirical` look at


@dataclass(frozen=True)
class SimulateJob(Job):
    """What both steps share.

    Attributes:
        snapshot: at ODD's epoch E.
        embedding: of it; None where the simulation needs no features.
        train_folder: of the role's trajectories.
    """

    stage: ClassVar[str] = "simulate"
    catalog: Catalog
    snapshot: Snapshot
    embedding: Embedding | None
    train_folder: str
    settings: SimulatedLossSection
    seed: int
    block_rows: int

    def epochs(self) -> range:
        """Those up to E whose mean loss is judged."""
        last = self.snapshot.epoch
        return range(max(1, last - self.settings.average + 1), last + 1)

    def simulated(self) -> tuple[Array, float]:
        """The simulated losses, ascending, and their percentile; both must be there."""
        arrays = map_arrays(self.store, f"{self.folder}/{SIMULATED}.safetensors")
        return arrays["losses"], float(arrays["threshold"][0])


@dataclass(frozen=True)
class ThresholdJob(SimulateJob):
    """Simulates the losses and takes their percentile. One unit."""

    def units(self) -> Sequence[str]:
        return [SIMULATED]

    def open(self) -> Callable[[str], UnitResult]:
        arrays = map_arrays(self.store, self.snapshot.file)
        weight, bias = arrays["head.weight"], arrays["head.bias"]

        def compute(_: str) -> UnitResult:
            seen = self._features()
            moments = {} if seen is None else {"mean": seen.mean(axis=0), "std": seen.std(axis=0), "features": seen}
            losses = simulated_losses(weight, bias, self.settings.kind, NUM_DRAWS, self.seed, **moments)
            at = np.array([threshold(losses, self.settings.percentile)])
            return UnitResult({"losses": losses, "threshold": at}, rows=0)

        return compute

    def _features(self) -> Array | None:
        if self.embedding is None:
            return None
        chosen = smallest_draws(self.seed, "simulate.features", self.catalog.draw_id, FEATURE_ROWS)
        return self.embedding.features(np.flatnonzero(chosen)).astype(np.float64)


@dataclass(frozen=True)
class JudgeJob(SimulateJob):
    """odd, odd_quantile and odd_drop of a block of rows, from the mean loss of the epochs up to E."""

    def units(self) -> Sequence[str]:
        return [f"{ROWS}/{name}" for name in block_names(self.catalog.num_rows, self.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        simulated, at = self.simulated()

        def compute(unit: str) -> UnitResult:
            block = int(unit.removeprefix(f"{ROWS}/"))
            start, stop = block_range(block, self.block_rows, self.catalog.num_rows)
            losses = [read_trajectory(self.store, self.train_folder, epoch, block)[0] for epoch in self.epochs()]
            odd = odd_score(np.stack(losses))
            content = {
                "odd": odd,
                "odd_quantile": quantile_of(-odd, simulated),
                "odd_drop": odd_drop(-odd, at),
            }
            return UnitResult(content, rows=stop - start)

        return compute

    def losses(self) -> Array:
        """(N,) losses that were judged; all units must be done."""
        return -np.concatenate([map_arrays(self.store, self.file(unit))["odd"] for unit in self.units()])


@dataclass(frozen=True)
class CheckJob(SimulateJob):
    """Compares the losses of planted rows, whose labels were drawn uniformly, with the simulated ones. One unit."""

    suffix: ClassVar[str] = ".json"

    def units(self) -> Sequence[str]:
        return [CHECK]

    def open(self) -> Callable[[str], UnitResult]:
        simulated, _ = self.simulated()

        def compute(_: str) -> UnitResult:
            found = self.losses()
            facts = {
                "planted": len(found),
                "distance": agreement(found, simulated) if len(found) else None,
                "follows": follows(found, simulated),
                "planted_losses": np.quantile(found, QUANTILES).tolist() if len(found) else [],
                "simulated_losses": np.quantile(simulated, QUANTILES).tolist(),
            }
            return UnitResult(facts, rows=len(found))

        return compute

    def losses(self) -> Array:
        """(M,) mean losses of the planted rows, in order of rows."""
        planted = np.flatnonzero(drawn_to_flip(self.catalog.clip_id, self.settings.planted, self.seed))
        losses = []
        for block in np.unique(planted // self.block_rows):
            here = planted[planted // self.block_rows == block] - block * self.block_rows
            read = (read_trajectory(self.store, self.train_folder, epoch, int(block))[0] for epoch in self.epochs())
            losses.append(np.mean([each[here] for each in read], axis=0))
        return np.concatenate(losses) if losses else np.empty(0)


def simulate_jobs(
    catalog: Catalog,
    snapshot: Snapshot,
    embed: Space | None,
    train_folder: str,
    trajectories: str,
    settings: SimulatedLossSection,
    seed: int,
    block_rows: int,
) -> tuple[ThresholdJob, JudgeJob, CheckJob]:
    """The steps of ODD, in order; the check is for the role whose labels are planted."""
    fields = settings.model_dump(exclude={"role", "epoch"}) | {"seed": seed, "block_rows": block_rows}
    inputs = [catalog.fingerprint, snapshot.fingerprint, str(snapshot.epoch), trajectories]
    reads: tuple[Job, ...] = () if embed is None else (embed,)
    inputs += [job.folder for job in reads]
    embedding = None if embed is None else embed.embedding
    folder = f"simulate-{fingerprint('simulate', VERSION, fields, inputs)}"
    shared = catalog.store, folder, catalog, snapshot, embedding, train_folder, settings, seed, block_rows
    simulated = ThresholdJob(*shared, after=reads)
    return simulated, JudgeJob(*shared, after=(simulated,)), CheckJob(*shared, after=(simulated,))
