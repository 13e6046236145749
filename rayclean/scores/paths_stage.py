"""Pairs and paths: the lists' distinct pairs in an order that keeps images near, then forwards along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack, with_rest
from rayclean.embed.table import Embedding
from rayclean.neighbors.cells import ordering_cells
from rayclean.neighbors.parts import group_labels
from rayclean.scores.interpolation import interior_sums, partial_sums
from rayclean.scores.pairs import Pairs, ordered_for_locality, undirected_pairs
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_name, block_range, num_blocks
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.snapshots import NetworkSpec, Snapshot, load_snapshot

PAIRS_VERSION = 1
PATHS_VERSION = 1


@dataclass(frozen=True)
class PairsJob(Job):
    """The distinct pairs of same-label lists, a group of whole labels a unit."""

    stage: ClassVar[str] = "pairs"
    catalog: Catalog
    embedding: Embedding
    lists_folder: str
    group_rows: int
    block_rows: int

    def groups(self) -> list[tuple[int, ...]]:
        """The labels of each unit."""
        return group_labels(self.catalog.class_counts, self.group_rows)

    def units(self) -> Sequence[str]:
        """A unit a group of labels."""
        return [block_name(i) for i in range(len(self.groups()))]

    def open(self) -> Callable[[str], UnitResult]:
        """Plans the groups."""
        groups = self.groups()

        def compute(unit: str) -> UnitResult:
            labels = groups[int(unit)]
            start, stop = self.catalog.label_range(labels[0])[0], self.catalog.label_range(labels[-1])[1]
            rows = self.catalog.by_label[start:stop]
            pairs = self._ordered(undirected_pairs(rows, self._lists(start, stop)), rows)
            facts = {"pairs": len(pairs.left), "listed": int(np.bitwise_count(pairs.listed).sum())}
            return UnitResult(pairs._asdict(), rows=stop - start, facts=facts)

        return compute

    def _lists(self, start: int, stop: int) -> Array:
        """Neighbour rows of positions [start, stop) of the order by label."""
        pieces = []
        for block in range(start // self.block_rows, num_blocks(stop, self.block_rows)):
            lists = map_arrays(self.store, f"{self.lists_folder}/same/{block_name(block)}.safetensors")["rows"]
            first = block * self.block_rows
            pieces.append(lists[max(start - first, 0) : stop - first])
        return np.concatenate(pieces)

    def _ordered(self, pairs: Pairs, rows: Array) -> Pairs:
        """Sorts by label and by the ordering cells of both ends."""
        labels = self.catalog.label[rows]
        cells = np.concatenate(
            [ordering_cells(self.embedding.features(rows[labels == label])) for label in np.unique(labels)]
        )
        by_row = np.argsort(rows)
        ascending = rows[by_row]
        left = cells[by_row[np.searchsorted(ascending, pairs.left)]]
        right = cells[by_row[np.searchsorted(ascending, pairs.right)]]
        return ordered_for_locality(pairs, self.catalog.label[pairs.left], left, right)


@dataclass(frozen=True)
class PathsJob(Job):
    """Walks the paths of a snapshot's pairs, a block of pairs a unit."""

    stage: ClassVar[str] = "paths"
    catalog: Catalog
    embedding: Embedding
    snapshot: Snapshot
    spec: NetworkSpec
    forward: ForwardSettings
    max_pixels: float
    pairs_folder: str
    num_groups: int
    steps: int
    block_pairs: int

    def units(self) -> Sequence[str]:
        """A unit a block of a group's pairs; the pairs must be there."""
        names = []
        for group in range(self.num_groups):
            total = len(self._group(group)["left"])
            names += [f"{block_name(group)}-{block_name(i)}" for i in range(num_blocks(total, self.block_pairs))]
        return names

    def _group(self, group: int) -> dict[str, Array]:
        return map_arrays(self.store, f"{self.pairs_folder}/{block_name(group)}.safetensors")

    def open(self) -> Callable[[str], UnitResult]:
        """Loads the network."""
        network = load_snapshot(self.store, self.snapshot.file, self.spec)
        forward = Forward(network, self.spec, self.forward)
        pixels = self.catalog.shared_pixels(self.spec.size, self.max_pixels)

        def compute(unit: str) -> UnitResult:
            group, block = (int(part) for part in unit.split("-"))
            arrays = self._group(group)
            start, stop = block_range(block, self.block_pairs, len(arrays["left"]))
            pairs = Pairs(*(arrays[name][start:stop] for name in Pairs._fields))
            rows, index = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
            left, right = index[: len(pairs.left)], index[len(pairs.left) :]
            images = forward.normalized(pixels.read(rows))
            with forward.running():
                interior = interior_sums(
                    forward.probabilities, images, left, right, self.steps, self.forward.batch_size
                )
            ends = self.embedding.beliefs(rows)
            sums = partial_sums(pairs, with_rest(interior), ends[left], ends[right])
            facts = {"forwards": len(left) * (self.steps - 1), "decoded": len(rows), "pairs": len(left)}
            content = {"rows": sums.rows, "num_paths": sums.num_paths}
            content |= pack(sums.sums, self.catalog.label[sums.rows])
            return UnitResult(content, rows=len(rows), facts=facts)

        return compute


def pairs_job(catalog: Catalog, embedding: Embedding, lists_folder: str, group_rows: int, block_rows: int) -> PairsJob:
    """The pairs of a snapshot's same-label lists."""
    fields = {"group_rows": group_rows}
    mark = fingerprint("pairs", PAIRS_VERSION, fields, [lists_folder])
    return PairsJob(catalog.store, f"pairs-{mark}", catalog, embedding, lists_folder, group_rows, block_rows)


def paths_job(
    pairs: PairsJob,
    snapshot: Snapshot,
    spec: NetworkSpec,
    forward: ForwardSettings,
    max_pixels: float,
    steps: int,
    block_pairs: int,
) -> PathsJob:
    """The paths of a snapshot's pairs."""
    fields = {
        "steps": steps,
        "block_pairs": block_pairs,
        "precision": forward.precision,
        "batch_size": forward.batch_size,
    }
    mark = fingerprint("paths", PATHS_VERSION, fields, [pairs.folder, pairs.embedding.folder])
    return PathsJob(
        pairs.store,
        f"paths-{mark}",
        pairs.catalog,
        pairs.embedding,
        snapshot,
        spec,
        forward,
        max_pixels,
        pairs.folder,
        len(pairs.groups()),
        steps,
        block_pairs,
    )
