"""Neighbour vote and evidence from the any-label lists, one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.neighbors.stage import AnyLabelJob
from rayclean.schema import NO_LABEL, NO_ROW
from rayclean.scores.vote import neighbor_vote
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range

VERSION = 2
EVIDENCE = 3


@dataclass(frozen=True)
class VoteJob(Job):
    """The share of a row's any-label neighbours with its label, their labels, and the three nearest as evidence.

    Attributes:
        num: of the nearest ones that vote; lists may be longer.
    """

    stage: ClassVar[str] = "vote"
    catalog: Catalog
    lists_folder: str
    block_rows: int
    num: int

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            lists = map_arrays(self.store, f"{self.lists_folder}/any/{unit}.safetensors")
            there = lists["rows"] != NO_ROW
            labels = np.where(there, self.catalog.label[np.maximum(lists["rows"], 0)], NO_LABEL)
            vote = neighbor_vote(labels[:, : self.num], there[:, : self.num], self.catalog.label[start:stop])
            nearest, distances = lists["rows"][:, :EVIDENCE], lists["distances"][:, :EVIDENCE]
            content = {"vote": vote, "neighbors": nearest, "neighbor_distances": distances}
            return UnitResult(content | {"near_labels": labels.astype(np.int32)}, rows=stop - start)

        return compute


def vote_job(catalog: Catalog, lists: AnyLabelJob, block_rows: int, num: int) -> VoteJob:
    """The vote of the first `num` rows of a snapshot's any-label lists."""
    fields = {"block_rows": block_rows} | ({"num": num} if num < lists.num else {})
    mark = fingerprint("vote", VERSION, fields, [lists.folder])
    return VoteJob(catalog.store, f"vote-{mark}", catalog, lists.folder, block_rows, num, after=(lists,))
