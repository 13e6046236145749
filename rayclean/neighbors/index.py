"""The neighbour index of a snapshot: rows ordered by label, in mapped part files, searched by FAISS.

One structure answers both kinds of query: same label (one range of the order) and any label (all of it). A range
of fewer than `ivf_rows` rows is searched flat; a larger one through the IVF lists of its parts, with the cells
picked once for all of them. Either way the search only proposes; `select.nearest` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.late import torch
from rayclean.neighbors.brute import knn
from rayclean.neighbors.files import IndexFiles, Probes, Span
from rayclean.neighbors.ivf import nearest_cells, search_lists
from rayclean.neighbors.parts import plan_parts
from rayclean.neighbors.select import Neighbors, Points, nearest
from rayclean.schema import NO_ROW, Array
from rayclean.storage.draws import seeded_hash
from rayclean.storage.store import Store

GPU_MAX_K = 2048  # FAISS's limit; more are asked for only where a label is full of copies


@dataclass(frozen=True)
class IndexSettings:
    """What decides a list of neighbours, beside the embedding.

    Flat or IVF depends on numbers of rows alone, never on the machine, so that any worker gives the same lists.
    IVF runs on the CPU; where GPUs search, a larger `ivf_rows` keeps more of the work flat, which is theirs.

    Attributes:
        pool: search among a seeded random pool of so many rows of the label (same-label queries only).
        seed: of the pool and of every sample.
        part_rows: rows of an index part.
        ivf_rows: a search among so many rows or more goes through IVF.
        recall_target: what IVF must reach on a seeded sample.
        any_label: whether lists of any label are wanted too, not only of the same.
        device: `cuda` searches flat on the GPU where FAISS sees one.
        flat: search flat whatever the numbers, by torch: where there is no FAISS.
    """

    pool: int | None
    seed: int
    part_rows: int
    ivf_rows: int
    recall_target: float
    any_label: bool
    device: str
    flat: bool = False

    def uses_ivf(self, num_rows: int) -> bool:
        """Whether a search among so many rows goes through IVF."""
        return not self.flat and num_rows >= self.ivf_rows

    def ivf_labels(self, class_counts: Array) -> list[int]:
        """Labels whose same-label lists go through IVF; a pool is always searched flat."""
        return [] if self.pool is not None else [label for label, n in enumerate(class_counts) if self.uses_ivf(n)]

    def needs_ivf(self, class_counts: Array) -> bool:
        """Whether any search of the snapshot goes through IVF."""
        return bool(self.ivf_labels(class_counts)) or (self.any_label and self.uses_ivf(int(class_counts.sum())))


class Cells(NamedTuple):
    """Cells that hold rows of what is searched: their numbers (U,) int64 and centroids (U, d) float32."""

    numbers: Array
    centroids: Array


class NeighborIndex:
    """Answers queries from the files of an index.

    Positions count the catalog's rows ordered by (label, row); part files hold features in that order.

    Args:
        store: the run's files.
        folder: the index's.
        catalog: the rows.
        settings: how to search.
    """

    def __init__(self, store: Store, folder: str, catalog: Catalog, settings: IndexSettings) -> None:
        self.catalog, self.settings = catalog, settings
        self.files = IndexFiles(store, folder, plan_parts(catalog.class_counts, settings.part_rows))
        by_row = catalog.by_label, catalog.label, catalog.twins, catalog.draw_id
        self.points = Points(*by_row, self.files.features, of_any_label=catalog.has_features)
        self.last_cells: tuple[int, Cells] | None = None
        self.last_pool: tuple[int, Array, Array] | None = None

    @cached_property
    def resources(self) -> Any:
        """What FAISS needs to search on the GPU; None where it does not."""
        import faiss

        return faiss.StandardGpuResources() if self.settings.device == "cuda" and faiss.get_num_gpus() > 0 else None

    @cached_property
    def probes(self) -> Probes:
        """How many cells are searched: as published, or as set before the first search."""
        return self.files.probes()

    @cached_property
    def centroids(self) -> Array:
        """The coarse quantiser."""
        return self.files.centroids()

    def positions_of(self, rows: Array) -> Array:
        """Positions of `rows` (M,); rows of a label ascend, so no inverse of the whole order is needed."""
        labels = self.catalog.label[rows]
        positions = np.empty(len(rows), np.int64)
        for label in np.unique(labels):
            start, stop = self.catalog.label_range(int(label))
            here = labels == label
            positions[here] = start + np.searchsorted(self.catalog.by_label[start:stop], rows[here])
        return positions

    def same_label(self, label: int, positions: Array, num: int) -> Neighbors:
        """The `num` nearest rows with the same label of the rows at `positions` (Q,), which have that label."""
        if self.settings.pool is not None:
            return nearest(self.points, positions, lambda q, k: self._from_pool(label, q, k), num)
        parts = enumerate(self.files.parts)
        spans = [Span(i, *edges) for i, part in parts for other, *edges in part.spans if other == label]
        if not self.settings.uses_ivf(int(self.catalog.class_counts[label])):
            return nearest(self.points, positions, lambda q, k: self._flat(spans, q, k), num)
        cells, probes = self._cells_of(label, spans), self.probes.same
        return nearest(self.points, positions, lambda q, k: self._ivf(spans, cells, probes, q, k), num)

    def any_label(self, positions: Array, num: int) -> Neighbors:
        """The `num` nearest rows of all of the rows at `positions` (Q,)."""
        spans = [Span(i, part.start, part.stop) for i, part in enumerate(self.files.parts)]
        if not self.settings.uses_ivf(self.catalog.num_rows):
            return nearest(self.points, positions, lambda q, k: self._flat(spans, q, k), num)
        cells, probes = Cells(np.arange(len(self.centroids)), self.centroids), self.probes.any
        return nearest(self.points, positions, lambda q, k: self._ivf(spans, cells, probes, q, k), num)

    def _cells_of(self, label: int, spans: list[Span]) -> Cells:
        """The cells that hold rows of a label.

        A wrongly labelled row lies where rows of its label are few: the cells around it are empty of them, and
        the search must not spend its probes there.
        """
        if self.last_cells is None or self.last_cells[0] != label:
            held = np.zeros(len(self.centroids), bool)
            for span in spans:
                held[self.files.cells(span)] = True
            numbers = np.flatnonzero(held)
            self.last_cells = label, Cells(numbers, self.centroids[numbers])
        return self.last_cells[1]

    def _knn(self, queries: Array, base: Array, k: int) -> tuple[Array, Array]:
        """Flat search: squared distances and indexes in `base` (Q, min(k, len(base)))."""
        k = min(k, len(base))
        if self.settings.flat:
            return knn(queries, base, k, torch.device(self.settings.device))
        import faiss

        if self.resources is not None and k <= GPU_MAX_K:
            distances, ids = faiss.knn_gpu(self.resources, queries, base, k)
        else:
            distances, ids = faiss.knn(queries, base, k)
        return distances, ids

    def _flat(self, spans: list[Span], queries: Array, k: int) -> Array:
        """The k nearest positions of each query in the spans, `NO_ROW` where there are fewer."""
        found = []
        for span in spans:
            distances, ids = self._knn(queries, self.files.base(span), k)
            found.append((distances, np.where(ids < 0, NO_ROW, ids + span.start)))
        return _merge(found, k)

    def _ivf(self, spans: list[Span], cells: Cells, num_probes: int, queries: Array, k: int) -> Array:
        """The k nearest positions of each query in its nearest cells, in twice as many where these hold fewer."""
        positions = np.full((len(queries), k), NO_ROW, np.int64)
        open_ = np.arange(len(queries))
        while True:
            num_probes = min(num_probes, len(cells.numbers))
            chosen, coarse = nearest_cells(queries[open_], cells.centroids, num_probes)
            numbers = cells.numbers[chosen]
            found = [
                search_lists(self.files.lists(span.part), queries[open_], k, numbers, coarse, span.start, span.stop)
                for span in spans
            ]
            positions[open_] = _merge(found, k)
            open_ = open_[(positions[open_] == NO_ROW).any(axis=1)]
            # Rows that were found stay as they are: more probes are for those alone that lack neighbours.
            if len(open_) == 0 or num_probes == len(cells.numbers):
                return positions
            num_probes *= 2

    def _from_pool(self, label: int, queries: Array, k: int) -> Array:
        """Neighbours among the rows of the label with the smallest seeded hashes [IOFM's subset option]."""
        if self.last_pool is None or self.last_pool[0] != label:
            start, stop = self.catalog.label_range(label)
            # The smallest hashes of what the samples are: the same pool in any sharding.
            ids = self.catalog.draw_id[self.catalog.by_label[start:stop]]
            hashes = seeded_hash(self.settings.seed, "neighbors.pool", ids)
            pool = start + np.sort(np.argsort(hashes, kind="stable")[: self.settings.pool])
            self.last_pool = label, pool, self.files.features(pool).astype(np.float32)
        _, pool, base = self.last_pool
        distances, ids = self._knn(queries, base, k)
        return _merge([(distances, np.where(ids < 0, NO_ROW, pool[ids]))], k)


def _merge(found: list[tuple[Array, Array]], k: int) -> Array:
    """The k nearest positions of all that was found, (Q, k); `NO_ROW` where there are fewer."""
    distances, positions = (np.concatenate(column, axis=1) for column in zip(*found, strict=True))
    order = np.argsort(np.where(positions < 0, np.inf, distances), axis=1, kind="stable")[:, :k]
    positions = np.take_along_axis(positions, order, 1)
    missing = k - positions.shape[1]
    return np.pad(positions, ((0, 0), (0, missing)), constant_values=NO_ROW) if missing else positions
