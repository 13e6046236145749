"""Neighbours: index parts, then lists of nearest rows with the same label and of any label, with measured recall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding
from rayclean.neighbors.files import QUANTIZER, lists_name, part_name
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.ivf import build_lists, count_cells, nearest_cells
from rayclean.neighbors.parts import plan_parts
from rayclean.neighbors.recall import is_sampled, measure
from rayclean.neighbors.select import Neighbors
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range

VERSION = 2
RECALL_ROWS = 200


@dataclass(frozen=True)
class IndexJob(Job):
    """Puts the features of a snapshot in the order of labels, one part per unit, with its IVF lists where they pay."""

    stage: ClassVar[str] = "neighbors"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    embedding: Embedding
    settings: IndexSettings

    def units(self) -> Sequence[str]:
        parts = plan_parts(self.catalog.class_counts, self.settings.part_rows)
        return [part_name(i) for i in range(len(parts))]

    def beside(self, unit: str) -> Sequence[str]:
        """The IVF lists, where they pay."""
        return [lists_name(unit)] if self.settings.needs_ivf(self.catalog.class_counts) else []

    def open(self) -> Callable[[str], UnitResult]:
        """Plans the parts; maps the coarse quantiser."""
        parts = dict(zip(self.units(), plan_parts(self.catalog.class_counts, self.settings.part_rows), strict=True))
        centroids = None
        if self.settings.needs_ivf(self.catalog.class_counts):
            centroids = map_arrays(self.store, f"{self.folder}/{QUANTIZER}.safetensors")["centroids"]

        def compute(unit: str) -> UnitResult:
            part = parts[unit]
            features = self.embedding.features(self.catalog.by_label[part.start : part.stop])
            if centroids is None:
                return UnitResult({"features": features}, rows=len(features))
            cells = nearest_cells(features.astype(np.float32), centroids, 1)[0][:, 0]
            lists = build_lists(features, part.start, cells, len(centroids))
            content = {"features": features, "cells": cells.astype(np.int32)}
            return UnitResult(content, {lists_name(unit): lists}, len(features))

        return compute


@dataclass(frozen=True)
class SameLabelJob(Job):
    """Lists of the L nearest rows with the same label, for blocks of rows in the order of labels."""

    stage: ClassVar[str] = "neighbors"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    settings: IndexSettings
    num: int
    block_rows: int

    def units(self) -> Sequence[str]:
        """One unit per block of the order by label, so that a worker keeps its part of the index."""
        return [f"same/{name}" for name in block_names(self.catalog.num_rows, self.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        index = NeighborIndex(self.store, self.folder, self.catalog, self.settings)

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit.removeprefix("same/")), self.block_rows, self.catalog.num_rows)
            labels = self.catalog.label[self.catalog.by_label[start:stop]]
            found, facts = [], {"recall_hits": 0.0, "recall_wanted": 0.0}
            for label in np.unique(labels):
                positions = start + np.flatnonzero(labels == label)
                found.append(index.same_label(int(label), positions, self.num))
                if self.settings.pool is None:  # a pool's lists are not meant to be the nearest
                    _add_recall(facts, index, positions, found[-1], int(label))
            lists = Neighbors(*(np.concatenate(column) for column in zip(*found, strict=True)))
            return UnitResult(_arrays(lists), rows=stop - start, facts=facts)

        return compute


@dataclass(frozen=True)
class AnyLabelJob(Job):
    """Lists of the L nearest rows of any label, for blocks of rows."""

    stage: ClassVar[str] = "neighbors"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    settings: IndexSettings
    num: int
    block_rows: int

    def units(self) -> Sequence[str]:
        return [f"any/{name}" for name in block_names(self.catalog.num_rows, self.block_rows)]

    def open(self) -> Callable[[str], UnitResult]:
        index = NeighborIndex(self.store, self.folder, self.catalog, self.settings)

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit.removeprefix("any/")), self.block_rows, self.catalog.num_rows)
            positions = index.positions_of(np.arange(start, stop))
            lists = index.any_label(positions, self.num)
            facts = {"recall_hits": 0.0, "recall_wanted": 0.0}
            _add_recall(facts, index, positions, lists, None)
            return UnitResult(_arrays(lists), rows=stop - start, facts=facts)

        return compute


def _arrays(lists: Neighbors) -> dict[str, Array]:
    return {"rows": lists.rows, "distances": lists.distances.astype(np.float32)}


def _add_recall(
    facts: dict[str, float], index: NeighborIndex, positions: Array, lists: Neighbors, label: int | None
) -> None:
    """Adds what a seeded sample of the lists holds and should hold: over all units about RECALL_ROWS rows."""
    catalog, settings = index.catalog, index.settings
    share = RECALL_ROWS / catalog.num_rows
    here = is_sampled(catalog, positions, settings.seed, "neighbors.recall", share)
    recall = measure(index, positions[here], Neighbors(lists.rows[here], lists.distances[here]), label)
    facts["recall_hits"] += recall.hits
    facts["recall_wanted"] += recall.wanted


def neighbors_folder(
    catalog: Catalog, embedding: Embedding, settings: IndexSettings, num: int | tuple[int, int], block_rows: int
) -> str:
    """The folder of a snapshot's index and lists; below the size where IVF pays its settings change nothing.

    `num`: the length of the lists, or of those of the same label and of those of any.
    """
    fields: dict[str, Any] = {
        "pool": settings.pool,
        "seed": settings.seed,
        "part_rows": settings.part_rows,
        "num": num,
        "block_rows": block_rows,
    }
    if settings.needs_ivf(catalog.class_counts):
        fields["ivf"] = {
            "rows": settings.ivf_rows,
            "cells": count_cells(catalog.num_rows),
            "recall_target": settings.recall_target,
            "any_label": settings.any_label,
        }
    return f"neighbors-{fingerprint('neighbors', VERSION, fields, [embedding.folder])}"
