"""IOFM and INN on features, one block of rows per unit: paths to a row's neighbours through heads, without images.

IOFM's go through the head that has seen all labels; INN's, to neighbours of any label, through the one that is blind to
the row's, also at the neighbours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from rayclean.catalog.features import StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack
from rayclean.embed.heads_stage import load_heads
from rayclean.schema import NO_ROW, Array
from rayclean.scores.feature_paths import feature_paths
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_names, block_range
from rayclean.train.head import Head
from rayclean.train.heads_worker import HeadsTask
from rayclean.train.snapshots import Snapshot

VERSION = 1


@dataclass(frozen=True)
class FeaturePathsJob(Job):
    """What both kinds of paths share; files are those of `InterpolateJob`.

    Attributes:
        source: features of the rows.
        lists_folder: of their neighbours.
        num: L; lists may be longer.
        steps: H.
        end_weight: of a path's ends.
        device: where heads are run.
        block_rows: rows of a block, of the lists too.
    """

    stage: ClassVar[str] = "interpolate"
    pool: ClassVar[str] = "gpu"
    source: StandardFeatures
    lists_folder: str
    num: int
    steps: int
    end_weight: float
    device: str
    block_rows: int

    @property
    def catalog(self) -> Catalog:
        """The rows."""
        return self.source.catalog

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        lists, logits_by = self.lists(), self.heads()

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.block_rows, self.catalog.num_rows)
            rows, labels = np.arange(start, stop), self.catalog.label[start:stop]
            near = lists(rows)[:, : self.num]
            content = self._walked(rows, near, labels, logits_by)
            num_paths = (near != NO_ROW).sum(axis=1)
            content |= {"num_paths": num_paths.astype(np.int16)}
            return UnitResult(content, rows=stop - start, facts={"pairs": int(num_paths.sum())})

        return compute

    def _walked(self, rows: Array, near: Array, labels: Array, heads: Sequence[tuple[Array, Head]]) -> dict[str, Array]:
        """Score, 1 - score and belief of rows, each by the head that it belongs to."""
        score, one_minus = np.empty(len(rows)), np.empty(len(rows))
        belief = np.zeros((len(rows), self.catalog.num_classes + 1))
        for is_of, head in heads:
            mine = np.flatnonzero(is_of[rows])
            if not len(mine):
                continue
            lists = near[mine]
            # A row is an end of many paths; its features are read and multiplied once.
            read, places = np.unique(np.concatenate([rows[mine], lists[lists != NO_ROW]]), return_inverse=True)
            ends = head.ends(self.source.read(read))
            at = np.full(lists.shape, NO_ROW)
            at[lists != NO_ROW] = places[len(mine) :]
            how = self.steps, labels[mine], self.end_weight, head.logits_at
            walked = feature_paths(ends[places[: len(mine)]], ends, at, *how)
            score[mine], one_minus[mine], belief[mine, :-1] = walked.score, walked.one_minus, walked.belief
        return {"score": score, "one_minus": one_minus} | pack(belief, labels)

    @abstractmethod
    def lists(self) -> Callable[[Array], Array]:
        """What gives the neighbours (R, L) of consecutive rows (R,), `NO_ROW` where there are fewer."""

    @abstractmethod
    def heads(self) -> Sequence[tuple[Array, Head]]:
        """Heads with the rows that they judge, (N,) bool."""

    def _lists(self, name: str) -> Mapping[str, Array]:
        return map_arrays(self.store, f"{self.lists_folder}/{name}.safetensors")


@dataclass(frozen=True)
class SeenPathsJob(FeaturePathsJob):
    """To rows of the same label, by the head that has seen all labels, of one snapshot."""

    snapshot: Snapshot

    def lists(self) -> Callable[[Array], Array]:
        """Lists lie in the order of labels; what is opened of them stays open."""
        catalog = self.catalog
        position = np.empty(catalog.num_rows, np.int64)
        position[catalog.by_label] = np.arange(catalog.num_rows)
        opened: dict[int, Array] = {}

        def read(rows: Array) -> Array:
            at = position[rows]
            found = None
            for block in np.unique(at // self.block_rows):
                if block not in opened:
                    opened[block] = self._lists(f"same/{block_name(int(block))}")["rows"]
                here = np.flatnonzero(at // self.block_rows == block)
                found = np.empty((len(rows), opened[block].shape[1]), np.int64) if found is None else found
                found[here] = opened[block][at[here] - block * self.block_rows]
            return np.empty((0, 0), np.int64) if found is None else found

        return read

    def heads(self) -> Sequence[tuple[Array, Head]]:
        """One for all rows."""
        head = Head.read(map_arrays(self.store, self.snapshot.file), self.device)
        return [(np.ones(self.catalog.num_rows, bool), head)]


@dataclass(frozen=True)
class BlindPathsJob(FeaturePathsJob):
    """To rows of any label, by the heads of the chosen weight decay that are blind to the row's label."""

    task: HeadsTask

    def lists(self) -> Callable[[Array], Array]:
        """Lists lie in the order of rows."""
        return lambda rows: self._lists(f"any/{block_name(int(rows[0]) // self.block_rows)}")["rows"]

    def heads(self) -> Sequence[tuple[Array, Head]]:
        """One per fold."""
        heads, decay = load_heads(replace(self.task, device=self.device)), self.task.chosen()
        folds = range(self.task.settings.folds)
        return [(heads.folds == fold, heads.head(heads.blind_to(fold, decay))) for fold in folds]


def seen_paths_job(
    source: StandardFeatures,
    lists: Job,
    snapshot: Snapshot,
    num: int,
    steps: int,
    end_weight: float,
    device: str,
    block_rows: int,
) -> SeenPathsJob:
    """The paths of a snapshot's head to rows of the same label."""
    fields = {"num": num, "steps": steps, "end_weight": end_weight, "block_rows": block_rows}
    mark = fingerprint("seen-paths", VERSION, fields, [lists.folder, snapshot.fingerprint])
    how = source, lists.folder, num, steps, end_weight, device, block_rows
    return SeenPathsJob(source.catalog.store, f"interpolate-{mark}", *how, snapshot, after=(lists,))


def blind_paths_job(
    task: HeadsTask,
    lists: Job,
    snapshot: Snapshot,
    num: int,
    steps: int,
    end_weight: float,
    device: str,
    block_rows: int,
) -> BlindPathsJob:
    """The paths of blind heads to rows of any label; `snapshot`: the last one, which stands for all heads."""
    fields = {"num": num, "steps": steps, "end_weight": end_weight, "block_rows": block_rows}
    mark = fingerprint("blind-paths", VERSION, fields, [lists.folder, task.folder, snapshot.fingerprint])
    how = task.features, lists.folder, num, steps, end_weight, device, block_rows
    return BlindPathsJob(task.store, f"interpolate-{mark}", *how, task, after=(lists,))
