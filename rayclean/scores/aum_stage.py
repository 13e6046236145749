"""AUM with threshold samples from two roles' trajectories: their thresholds once, then one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.schema import Array
from rayclean.scores.aum import aum_excess, aum_threshold
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range, num_blocks
from rayclean.train.trajectories import read_trajectory

VERSION = 1
THRESHOLDS, ROWS = "thresholds", "rows"


class ThresholdedRole(NamedTuple):
    """A finished role some of whose rows carry the class of threshold samples: the largest of its catalog."""

    catalog: Catalog
    train_folder: str
    trajectories: str
    epochs: int


@dataclass(frozen=True)
class AumJob(Job):
    """What both steps share."""

    stage: ClassVar[str] = "aum"
    roles: tuple[ThresholdedRole, ...]
    block_rows: int

    def _num_rows(self) -> int:
        return self.roles[0].catalog.num_rows

    def _block(self, role: ThresholdedRole, block: int) -> tuple[Array, Array]:
        """AUM of a block's rows in a role, and which of them are threshold samples."""
        epochs = range(1, role.epochs + 1)
        margins = [read_trajectory(self.store, role.train_folder, epoch, block)[1] for epoch in epochs]
        start, stop = block_range(block, self.block_rows, self._num_rows())
        mean = np.mean(np.stack(margins).astype(np.float64), axis=0)
        return mean, role.catalog.label[start:stop] == role.catalog.num_classes - 1


@dataclass(frozen=True)
class ThresholdsJob(AumJob):
    """The threshold of each role. One unit."""

    def units(self) -> Sequence[str]:
        return [THRESHOLDS]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            found = []
            for role in self.roles:
                blocks = (self._block(role, i) for i in range(num_blocks(self._num_rows(), self.block_rows)))
                found.append(aum_threshold(np.concatenate([aum[drawn] for aum, drawn in blocks])))
            return UnitResult({"thresholds": np.array(found)}, rows=self._num_rows())

        return compute


@dataclass(frozen=True)
class ExcessJob(AumJob):
    """aum_excess of a block of rows."""

    def units(self) -> Sequence[str]:
        return [f"{ROWS}/{name}" for name in block_names(self._num_rows(), self.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        thresholds = map_arrays(self.store, f"{self.folder}/{THRESHOLDS}.safetensors")["thresholds"]

        def compute(unit: str) -> UnitResult:
            block = int(unit.removeprefix(f"{ROWS}/"))
            aum, drawn = (np.stack(each) for each in zip(*(self._block(r, block) for r in self.roles), strict=True))
            return UnitResult({"aum_excess": aum_excess(aum, thresholds, drawn)}, rows=aum.shape[1])

        return compute


def aum_jobs(roles: tuple[ThresholdedRole, ...], block_rows: int) -> tuple[ThresholdsJob, ExcessJob]:
    """The steps of AUM with threshold samples, in order."""
    inputs = [part for role in roles for part in (role.catalog.fingerprint, role.trajectories)]
    folder = f"aum-{fingerprint('aum', VERSION, {'block_rows': block_rows}, inputs)}"
    store = roles[0].catalog.store
    thresholds = ThresholdsJob(store, folder, roles, block_rows)
    return thresholds, ExcessJob(store, folder, roles, block_rows, after=(thresholds,))
