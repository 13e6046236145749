"""Between two rounds of paths: which rows are undecided; only they walk on to further neighbours [our choice]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import unpack
from rayclean.merge.anchors import fit_joint
from rayclean.merge.joint import JointModel
from rayclean.merge.models import fit_rows
from rayclean.merge.rounds import SURE, undecided
from rayclean.schema import JOINT, Array
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.draws import uniform
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range

VERSION = 1
MODEL = "model"


@dataclass(frozen=True)
class RoundJob(Job):
    """What both steps between two rounds read.

    Attributes:
        scores_folder: the interpolation scores of the rounds up to here.
    """

    stage: ClassVar[str] = "decide"
    pool: ClassVar[str] = "merge"
    catalog: Catalog
    scores_folder: str
    block_rows: int

    def beliefs(self, block: str) -> Array:
        """(n, K) of a block of rows."""
        arrays = map_arrays(self.store, f"{self.scores_folder}/{block}.safetensors")
        return unpack(arrays, slice(None), self.catalog.num_classes)[:, :-1]


@dataclass(frozen=True)
class RoundFitJob(RoundJob):
    """Fits the joint model to the beliefs of the rounds up to here. One unit."""

    suffix: ClassVar[str] = ".json"
    sample_rows: int
    seed: int

    def units(self) -> Sequence[str]:
        """The model."""
        return [MODEL]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            num_rows = self.catalog.num_rows
            share = fit_rows(JOINT, self.sample_rows, self.catalog.num_classes) / num_rows
            sampled, given = [], []
            for block in block_names(num_rows, self.block_rows):
                start, stop = block_range(int(block), self.block_rows, num_rows)
                chosen = uniform(self.seed, "merge.fit", self.catalog.draw_id[start:stop]) < share
                sampled.append(self.beliefs(block)[chosen])
                given.append(self.catalog.label[start:stop][chosen])
            model = fit_joint(np.concatenate(sampled), np.concatenate(given))
            return UnitResult(model.to_json(), rows=num_rows)

        return compute


@dataclass(frozen=True)
class UndecidedJob(RoundJob):
    """Marks the rows that walk on."""

    def units(self) -> Sequence[str]:
        """A unit a block of rows."""
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        """Loads the model."""
        model = JointModel.from_json(read_json(self.store, f"{self.folder}/{MODEL}.json"))

        def compute(block: str) -> UnitResult:
            start, stop = block_range(int(block), self.block_rows, self.catalog.num_rows)
            open_rows = undecided(model, self.beliefs(block), self.catalog.label[start:stop])
            facts = {"undecided": int(open_rows.sum())}
            return UnitResult({"undecided": open_rows.astype(np.uint8)}, rows=stop - start, facts=facts)

        return compute


def round_jobs(
    catalog: Catalog, scores_folder: str, block_rows: int, sample_rows: int, seed: int
) -> tuple[RoundFitJob, UndecidedJob]:
    """The steps between a round of paths and the next."""
    fields = {"block_rows": block_rows, "sample_rows": sample_rows, "seed": seed, "sure": SURE}
    folder = f"decide-{fingerprint('decide', VERSION, fields, [scores_folder])}"
    store = catalog.store
    return (
        RoundFitJob(store, folder, catalog, scores_folder, block_rows, sample_rows, seed),
        UndecidedJob(store, folder, catalog, scores_folder, block_rows),
    )
