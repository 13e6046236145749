"""Trajectory scores from the epochs' losses and margins, one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rayclean.catalog.table import Catalog
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range
from rayclean.train.trajectories import read_trajectory

VERSION = 1


@dataclass(frozen=True)
class TrajectoryJob(Job):
    """loss, ens_loss, margin, aum and wrong_events as of the last epoch."""

    stage: ClassVar[str] = "trajectory"
    catalog: Catalog
    train_folder: str
    epochs: int
    block_rows: int

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            running = RunningTrajectory(stop - start)
            for epoch in range(1, self.epochs + 1):
                running.add(*read_trajectory(self.store, self.train_folder, epoch, int(unit)))
            return UnitResult(running.scores(), rows=stop - start)

        return compute


def trajectory_job(
    catalog: Catalog, train_folder: str, trajectories: str, epochs: int, block_rows: int
) -> TrajectoryJob:
    """The trajectory scores of a role."""
    mark = fingerprint("trajectory", VERSION, {"block_rows": block_rows}, [catalog.fingerprint, trajectories])
    return TrajectoryJob(catalog.store, f"trajectory-{mark}", catalog, train_folder, epochs, block_rows)
