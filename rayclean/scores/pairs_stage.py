"""Pairs: the lists' distinct pairs, in an order that keeps near images together, cut into units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding, Space
from rayclean.neighbors.cells import ordering_cells
from rayclean.neighbors.parts import group_labels
from rayclean.neighbors.stage import AnyLabelJob, SameLabelJob
from rayclean.schema import NO_ROW, Array
from rayclean.scores.pairs import Pairs, ordered_for_locality, undirected_pairs
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_names, block_range, num_blocks

VERSION = 2


@dataclass(frozen=True)
class PairsJob(Job):
    """The distinct pairs of a snapshot's lists.

    Attributes:
        embedding: whose features say what is near.
        lists_folder: the lists.
        group_rows: rows of a unit.
        block_rows: rows of a file of lists.
        in_cells: whether near pairs are put together, for the sake of fewer images; k-means is FAISS's.
    """

    stage: ClassVar[str] = "pairs"
    catalog: Catalog
    embedding: Embedding
    lists_folder: str
    group_rows: int
    block_rows: int
    in_cells: bool = True

    def _cells(self, rows: Array) -> Array:
        if self.in_cells and len(rows):
            return ordering_cells(self.embedding.features(rows))
        return np.zeros(len(rows), np.int32)

    def _result(self, pairs: Pairs, rows: int) -> UnitResult:
        facts = {"pairs": len(pairs.left), "listed": int(np.bitwise_count(pairs.listed).sum())}
        return UnitResult(pairs._asdict(), rows=rows, facts=facts)

    def _lists(self, kind: str, block: int) -> Array:
        return map_arrays(self.store, f"{self.lists_folder}/{kind}/{block_name(block)}.safetensors")["rows"]


@dataclass(frozen=True)
class SameLabelPairsJob(PairsJob):
    """The pairs of same-label lists, one unit per group of whole labels."""

    def groups(self) -> list[tuple[int, ...]]:
        """The labels of each unit."""
        return group_labels(self.catalog.class_counts, self.group_rows)

    def units(self) -> Sequence[str]:
        return [block_name(i) for i in range(len(self.groups()))]

    def open(self) -> Callable[[str], UnitResult]:
        groups = self.groups()

        def compute(unit: str) -> UnitResult:
            labels = groups[int(unit)]
            start, stop = self.catalog.label_range(labels[0])[0], self.catalog.label_range(labels[-1])[1]
            rows = self.catalog.by_label[start:stop]
            pairs = undirected_pairs(rows, self._lists_between(start, stop))
            cells = np.empty(len(rows), np.int32)
            for label in labels:
                here = self.catalog.label[rows] == label
                cells[here] = self._cells(rows[here])
            return self._result(_ordered(pairs, self.catalog.label[pairs.left], rows, cells), len(rows))

        return compute

    def _lists_between(self, start: int, stop: int) -> Array:
        """Neighbour rows of positions [start, stop) of the order by label."""
        pieces = []
        for block in range(start // self.block_rows, num_blocks(stop, self.block_rows)):
            first = block * self.block_rows
            pieces.append(self._lists("same", block)[max(start - first, 0) : stop - first])
        return np.concatenate(pieces)


@dataclass(frozen=True)
class AnyLabelPairsJob(PairsJob):
    """The pairs of lists of any label, one range of their smaller rows per unit."""

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.group_rows)

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load; a unit reads the lists of all rows, of which any may list one of its rows."""

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.group_rows, self.catalog.num_rows)
            found = [
                self._listed_between(start, stop, block)
                for block in range(num_blocks(self.catalog.num_rows, self.block_rows))
            ]
            rows, lists = (np.concatenate(column) for column in zip(*found, strict=True))
            pairs = undirected_pairs(rows, lists)
            ends = np.unique(np.concatenate([pairs.left, pairs.right]))
            return self._result(_ordered(pairs, np.zeros(len(pairs.left)), ends, self._cells(ends)), stop - start)

        return compute

    def _listed_between(self, start: int, stop: int, block: int) -> tuple[Array, Array]:
        """Rows of a block of lists that have pairs whose smaller row is in [start, stop), and these neighbours."""
        lists = self._lists("any", block)
        rows = np.arange(block * self.block_rows, block * self.block_rows + len(lists))
        smaller = np.minimum(lists, rows[:, None])
        here = (lists != NO_ROW) & (smaller >= start) & (smaller < stop)
        some = here.any(axis=1)
        return rows[some], np.where(here[some], lists[some], NO_ROW)


def _ordered(pairs: Pairs, label: Array, rows: Array, cells: Array) -> Pairs:
    """Sorts by label and by the ordering cells of both ends; `cells` (N,) are those of `rows` (N,)."""
    by_row = np.argsort(rows)
    ascending = rows[by_row]
    left = cells[by_row[np.searchsorted(ascending, pairs.left)]]
    right = cells[by_row[np.searchsorted(ascending, pairs.right)]]
    return ordered_for_locality(pairs, label, left, right)


def pairs_job(
    any_label: bool,
    catalog: Catalog,
    space: Space,
    lists: SameLabelJob | AnyLabelJob,
    group_rows: int,
    block_rows: int,
) -> PairsJob:
    """The pairs of a snapshot's lists, of the same label or of any."""
    fields = {"group_rows": group_rows, "any_label": any_label}
    folder = f"pairs-{fingerprint('pairs', VERSION, fields, [lists.folder])}"
    kind = AnyLabelPairsJob if any_label else SameLabelPairsJob
    cut = group_rows, block_rows, not lists.settings.flat
    return kind(catalog.store, folder, catalog, space.embedding, lists.folder, *cut, after=(space, lists))
