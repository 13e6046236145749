"""What IVF needs beside the parts: the coarse quantiser before them, the number of probes after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding
from rayclean.neighbors.files import PROBES, QUANTIZER, Probes
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.ivf import TRAINING_ROWS_PER_CELL, count_cells, train_centroids
from rayclean.neighbors.recall import Recall, count_hits, fewest_probes, sample, true_radii
from rayclean.schema import Array
from rayclean.storage.draws import seeded_hash
from rayclean.storage.units import Job, UnitResult

PROBE_ROWS = 500  # 5,000 neighbours at L = 10: recall to about a per cent


@dataclass(frozen=True)
class QuantizerJob(Job):
    """The coarse quantiser of a snapshot, trained on a seeded sample; no unit where nothing is searched by IVF."""

    stage: ClassVar[str] = "neighbors"
    pool: ClassVar[str] = "gpu"
    catalog: Catalog
    embedding: Embedding
    settings: IndexSettings

    def units(self) -> Sequence[str]:
        return [QUANTIZER] if self.settings.needs_ivf(self.catalog.class_counts) else []

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            num_rows, seed = self.catalog.num_rows, self.settings.seed
            num_cells = count_cells(num_rows)
            share = TRAINING_ROWS_PER_CELL * num_cells / num_rows
            rows = self.catalog.by_label[sample(self.catalog, 0, num_rows, seed, "neighbors.quantizer", share)]
            # In the order of the draws, so that another sharding of the same samples trains the same centroids.
            rows = rows[np.argsort(seeded_hash(seed, "neighbors.quantizer", self.catalog.draw_id[rows]))]
            centroids = train_centroids(self.embedding.features(rows), num_cells, seed)
            return UnitResult({"centroids": centroids}, rows=len(rows))

        return compute


@dataclass(frozen=True)
class ProbesJob(Job):
    """How many cells each kind of query searches to reach the target; no unit where nothing is searched by IVF."""

    stage: ClassVar[str] = "neighbors"
    pool: ClassVar[str] = "gpu"
    suffix: ClassVar[str] = ".json"
    catalog: Catalog
    settings: IndexSettings
    num: int

    def units(self) -> Sequence[str]:
        return [PROBES] if self.settings.needs_ivf(self.catalog.class_counts) else []

    def open(self) -> Callable[[str], UnitResult]:
        index = NeighborIndex(self.store, self.folder, self.catalog, self.settings)

        def compute(_: str) -> UnitResult:
            found = {
                "same": self._measured(index, self.settings.ivf_labels(self.catalog.class_counts)),
                "any": self._measured(index, [None] if self.settings.any_label else []),
            }
            short = sum(entry["recall"] < self.settings.recall_target for entry in found.values())
            facts = {f"probes_{kind}": entry["probes"] for kind, entry in found.items()}
            rows = sum(entry["rows"] for entry in found.values())
            return UnitResult(found, rows=rows, facts={**facts, "short_of_recall_target": short})

        return compute

    def _measured(self, index: NeighborIndex, labels: Sequence[int | None]) -> dict[str, Any]:
        """The fewest probes over the lists of all these labels; None is the lists of any label."""
        samples = self._samples(labels)
        truth = [true_radii(index, positions, self.num, label) for label, positions in samples]

        def recall_at(probes: int) -> Recall:
            index.probes = Probes(probes, probes)
            hits = wanted = 0
            for (label, positions), radii in zip(samples, truth, strict=True):
                if label is None:
                    lists = index.any_label(positions, self.num)
                else:
                    lists = index.same_label(label, positions, self.num)
                recall = count_hits(lists, radii)
                hits, wanted = hits + recall.hits, wanted + recall.wanted
            return Recall(hits, wanted)

        num_cells = len(index.centroids) if samples else 0
        probes, recall = fewest_probes(recall_at, num_cells, self.settings.recall_target)
        rows = sum(len(positions) for _, positions in samples)
        return {"probes": probes, "recall": recall.share, "rows": rows}

    def _samples(self, labels: Sequence[int | None]) -> list[tuple[int | None, Array]]:
        """About PROBE_ROWS positions of all these labels."""
        ranges = [(0, self.catalog.num_rows) if label is None else self.catalog.label_range(label) for label in labels]
        share = PROBE_ROWS / max(sum(stop - start for start, stop in ranges), 1)
        return [
            (label, sample(self.catalog, start, stop, self.settings.seed, "neighbors.probes", share))
            for label, (start, stop) in zip(labels, ranges, strict=True)
        ]
