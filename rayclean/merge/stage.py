"""The merge: a model fitted once on a seeded sample, then applied part by part to give the final table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.config import MergeSection
from rayclean.merge.joint import Near
from rayclean.merge.models import Model, fit_model, fit_rows, from_json, is_near_row, judge, to_json
from rayclean.merge.table import shard_column, table_of_block
from rayclean.schema import JOINT
from rayclean.scores.clips_table import ClipFiles
from rayclean.scores.table import ScoreFiles
from rayclean.storage.contents import read_json
from rayclean.storage.draws import uniform
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_range, num_blocks

VERSION = 3
MODEL = "model"


@dataclass(frozen=True)
class FitJob(Job):
    """Fits the model of `merge.score` to rows, or to clips. One unit."""

    stage: ClassVar[str] = "merge"
    suffix: ClassVar[str] = ".json"
    pool: ClassVar[str] = "merge"
    files: ScoreFiles | ClipFiles
    score: str
    sample_rows: int
    seed: int

    def units(self) -> Sequence[str]:
        """The model."""
        return [MODEL]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            num_rows, block_rows = self.files.num_rows, self.files.block_rows
            rows = fit_rows(self.score, self.sample_rows, self.files.catalog.num_classes)
            sampled, given = [], []
            for block in range(num_blocks(num_rows, block_rows)):
                start, stop = block_range(block, block_rows, num_rows)
                chosen = uniform(self.seed, "merge.fit", self.files.draw_ids(start, stop)) < rows / num_rows
                sampled.append(self.files.read(block).take(chosen))
                given.append(self.files.given(start, stop)[chosen])
            near = self._near() if self.score == JOINT else None
            model = fit_model(self.score, sampled, np.concatenate(given), near)
            return UnitResult(to_json(self.score, model), rows=num_rows)

        return compute

    def _near(self) -> Near:
        """Some rows with their neighbours' beliefs; a clip's belief leans as those of its frames."""
        files = self.files.of_rows
        rows, neighbors = [], []
        for block in range(num_blocks(files.num_rows, files.block_rows)):
            start, stop = block_range(block, files.block_rows, files.num_rows)
            here = np.flatnonzero(is_near_row(self.seed, files.draw_ids(start, stop), files.num_rows))
            rows.append(start + here)
            neighbors.append(files.neighbors(block)[here])
        all_rows, near = np.concatenate(rows), np.concatenate(neighbors)
        beliefs = files.beliefs_of(near.ravel()).reshape(*near.shape, -1)
        return Near(files.beliefs_of(all_rows), beliefs, files.catalog.label[all_rows])


@dataclass(frozen=True)
class ApplyJob(Job):
    """Writes the parts of the final table, with counts a class beside each."""

    stage: ClassVar[str] = "merge"
    suffix: ClassVar[str] = ".parquet"
    pool: ClassVar[str] = "merge"
    files: ScoreFiles
    threshold: float
    num_neighbors: int
    table_rows: int

    def units(self) -> Sequence[str]:
        """A unit a part of the table."""
        return [f"part-{i:05d}" for i in range(num_blocks(self.files.catalog.num_rows, self.table_rows))]

    def open(self) -> Callable[[str], UnitResult]:
        """Loads the model."""
        name, model = from_json(read_json(self.store, f"{self.folder}/{MODEL}.json"))
        catalog = self.files.catalog
        shard_names = catalog.shards["name"].to_pylist()

        def compute(unit: str) -> UnitResult:
            block_rows = self.files.block_rows
            start, stop = block_range(int(unit.removeprefix("part-")), self.table_rows, catalog.num_rows)
            tables = [
                self._block(block, model, name, shard_names)
                for block in range(start // block_rows, num_blocks(stop, block_rows))
            ]
            table = pa.concat_tables(tables)
            beside = {f"classes-{unit}.safetensors": _class_counts(table, catalog.num_classes)}
            return UnitResult(table, beside, rows=stop - start)

        return compute

    def _block(self, block: int, model: Model, name: str, shard_names: list[str]) -> pa.Table:
        catalog = self.files.catalog
        start, stop = block_range(block, self.files.block_rows, catalog.num_rows)
        scores = self.files.read(block)
        given = catalog.label[start:stop]
        neighbor_labels = np.where(scores.neighbors >= 0, catalog.label[np.maximum(scores.neighbors, 0)], -1)
        few = (
            scores.num_paths < self.num_neighbors
            if scores.num_paths is not None
            else catalog.class_counts[given] <= self.num_neighbors
        )
        return table_of_block(
            _identity(catalog, start, stop, shard_names),
            given,
            catalog.duplicate_of[start:stop],
            judge(model, name, scores, given),
            scores,
            neighbor_labels,
            few,
            self.threshold,
        )


def _identity(catalog: Catalog, start: int, stop: int, shard_names: list[str]) -> dict[str, pa.Array]:
    """Columns row, shard and key of rows [start, stop)."""
    keys, shards = [], []
    for shard, first, last in catalog.shards_of(start, stop):
        keys.append(catalog.rows_of_shard(shard)["key"].slice(first, last - first).combine_chunks())
        shards.append(np.full(last - first, shard))
    return {
        "row": pa.array(np.arange(start, stop)),
        "shard": shard_column(np.concatenate(shards), shard_names),
        "key": pa.concat_arrays(keys),
    }


def _class_counts(table: pa.Table, num_classes: int) -> dict[str, Array]:
    """Sums a class that the parts add up to `classes.parquet`."""
    given = table["given_label"].to_numpy()
    wrong = 1 - table["label_score"].to_numpy().astype(np.float64)
    issue = table["is_label_issue"].to_numpy()
    predicted = table["predicted_label"].to_numpy()
    moved = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(moved, (given[issue], predicted[issue]), 1)
    return {
        "rows": np.bincount(given, minlength=num_classes).astype(np.int64),
        "wrong": np.bincount(given, weights=wrong, minlength=num_classes),
        "moved": moved,
    }


def merge_jobs(
    files: ScoreFiles, settings: MergeSection, score: str, num_neighbors: int, table_rows: int, seed: int
) -> tuple[FitJob, ApplyJob]:
    """The fit and the application of a run's merge."""
    fields = {
        "score": score,
        "names": files.names,
        "sample_rows": settings.sample_rows,
        "seed": seed,
        "threshold": settings.threshold,
        "num_neighbors": num_neighbors,
        "table_rows": table_rows,
    }
    folder = f"merge-{fingerprint('merge', VERSION, fields, files.inputs())}"
    store = files.catalog.store
    return (
        FitJob(store, folder, files, score, settings.sample_rows, seed),
        ApplyJob(store, folder, files, settings.threshold, num_neighbors, table_rows),
    )
