"""The merge: a model fitted once on a seeded sample, then applied part by part to give the final table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from rayclean.catalog.table import Catalog
from rayclean.config import MergeSection
from rayclean.decisions.verified import NOTHING_VERIFIED, VERIFIED, Verified, VerifiedSource, read_verified
from rayclean.merge.kinds import conflicting_rows
from rayclean.merge.models import Fitted, fit_model, fit_rows, is_near_row
from rayclean.merge.near import Near
from rayclean.merge.out_of_fold import fit_out_of_fold, head_reference
from rayclean.merge.table import shard_column, table_of_block
from rayclean.merge.trust import Trust, agreement, trusted
from rayclean.schema import JOINT, NO_LABEL, NONE_OF_CLASSES, Array
from rayclean.scores.block import joined
from rayclean.scores.clips_table import ClipFiles
from rayclean.scores.sources import LAST, Sources
from rayclean.scores.table import ScoreFiles
from rayclean.storage.contents import read_json
from rayclean.storage.draws import uniform
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_range, num_blocks

VERSION = 12
MODEL = "model"


@dataclass(frozen=True)
class FitJob(Job):
    """Fits the model of `merge.score` to rows, or to clips. One unit.

    Attributes:
        old: beliefs of an earlier run's rows, to which the model is fitted; None for those of these rows.
    """

    stage: ClassVar[str] = "merge"
    suffix: ClassVar[str] = ".json"
    files: ScoreFiles | ClipFiles
    score: str
    sample_rows: int
    seed: int
    verified: VerifiedSource | None = None
    old: ScoreFiles | None = None

    def units(self) -> Sequence[str]:
        return [MODEL]

    def beside(self, unit: str) -> Sequence[str]:
        """What people have verified, where anything."""
        return [] if self.verified is None else [VERIFIED]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            num_rows, found = self.files.num_rows, None
            if self.verified is not None:
                known = self.verified.find(self.files.catalog)
                found = Verified.make(self.files.positions(known.rows), known.labels)
            fitted = self._fitted(found or NOTHING_VERIFIED)
            if self.verified is None or found is None:
                return UnitResult(fitted.to_json(), rows=num_rows)
            fitted = self._calibrated(fitted, found)
            facts = {"verified": len(known.rows), "verified_elsewhere": self.verified.num_elsewhere(known)}
            return UnitResult(fitted.to_json(), {VERIFIED: found._asdict()}, rows=num_rows, facts=facts)

        return compute

    def _fitted(self, verified: Verified) -> Fitted:
        """By a random part of the rows."""
        if self.score == JOINT and self.old is not None:
            return self._fitted_blind(self.old, NOTHING_VERIFIED)
        if self.score == JOINT and self.files.of_rows.blind is not None:
            return self._fitted_blind(self.files, verified)
        near, trust = self._near() if self.score == JOINT else (None, None)
        sources = LAST if trust is None else trust.sources
        sampled, given = [], []
        for block, start, stop, chosen in self._sample(self.files):
            sampled.append(self.files.read(block, sources).take(chosen))
            given.append(self.files.given(start, stop)[chosen])
        return fit_model(self.score, sampled, np.concatenate(given), near, trust)

    def _fitted_blind(self, files: ScoreFiles | ClipFiles, verified: Verified) -> Fitted:
        """To beliefs that have not seen the labels."""
        sources: dict[str, list[Array]] = {}
        given, known = [], []
        for block, start, stop, chosen in self._sample(files):
            for name, belief in files.blind_beliefs(block).items():
                sources.setdefault(name, []).append(belief[chosen])
            given.append(files.given(start, stop)[chosen])
            known.append(verified.between(start, stop)[chosen])
        beliefs = {name: np.concatenate(pieces) for name, pieces in sources.items()}
        how = head_reference(beliefs), True, np.concatenate(known)
        return fit_out_of_fold(beliefs, np.concatenate(given), *how)

    def _sample(self, files: ScoreFiles | ClipFiles) -> Iterator[tuple[int, int, int, Array]]:
        """By block its rows [start, stop), and (n,) bool which of them the model is fitted to."""
        num_rows, block_rows = files.num_rows, files.block_rows
        rows = fit_rows(self.score, self.sample_rows, files.catalog.num_classes)
        for block in range(num_blocks(num_rows, block_rows)):
            start, stop = block_range(block, block_rows, num_rows)
            # Each row is drawn by itself, by what it is: the same rows in any sharding, about as many as are asked for.
            yield (
                block,
                start,
                stop,
                uniform(self.seed, "merge.fit", files.draw_ids(start, stop)) < rows / num_rows,
            )

    def _calibrated(self, fitted: Fitted, verified: Verified) -> Fitted:
        """By the rows that people have verified."""
        blocks, labels = [], []
        for block in np.unique(verified.rows // self.files.block_rows):
            start, stop = block_range(int(block), self.files.block_rows, self.files.num_rows)
            right = verified.between(start, stop)
            blocks.append(self.files.read(int(block), fitted.sources).take(right != NO_LABEL))
            labels.append(np.stack([self.files.given(start, stop), right])[:, right != NO_LABEL])
        return fitted.calibrated(joined(blocks), *np.concatenate(labels, axis=1)) if blocks else fitted

    def _near(self) -> tuple[Near, Trust]:
        """Some rows with their neighbours' beliefs, and whose these are; a clip's belief is as those of its frames."""
        files = self.files.of_rows
        found: list[tuple[Array, Array, Array]] = []
        for block in range(num_blocks(files.num_rows, files.block_rows)):
            start, stop = block_range(block, files.block_rows, files.num_rows)
            here = np.flatnonzero(is_near_row(self.seed, files.draw_ids(start, stop), files.num_rows))
            found.append((start + here, files.neighbors(block, 0)[here], files.neighbors(block)[here]))
        rows, first, near = (np.concatenate(column) for column in zip(*found, strict=True))
        label = files.catalog.label
        given = label[rows]
        # Trust is told by what was near at the first snapshot, before any label could be memorised (`trust`).
        first_labels, labels = (np.where(each >= 0, label[np.maximum(each, 0)], NO_LABEL) for each in (first, near))
        trust = trusted(
            {epoch: agreement(files.beliefs_of(rows, Sources(epoch)), given, first_labels) for epoch in files.epochs},
            {role: agreement(files.belief_of_role(role, rows), given, first_labels) for role in files.others},
        )
        beliefs = files.beliefs_of(near.ravel(), trust.sources).reshape(*near.shape, -1)
        return Near(files.beliefs_of(rows, trust.sources), beliefs, given, labels, first_labels), trust


@dataclass(frozen=True)
class ApplyJob(Job):
    """Writes the parts of the final table, with counts per class beside each.

    Attributes:
        has_verified: whether people have verified rows of it.
    """

    stage: ClassVar[str] = "merge"
    suffix: ClassVar[str] = ".parquet"
    files: ScoreFiles
    threshold: float
    num_neighbors: int
    table_rows: int
    has_verified: bool = False

    def units(self) -> Sequence[str]:
        return [f"part-{i:05d}" for i in range(num_blocks(self.files.catalog.num_rows, self.table_rows))]

    def beside(self, unit: str) -> Sequence[str]:
        """Counts by class."""
        return [f"classes-{unit}.safetensors"]

    def open(self) -> Callable[[str], UnitResult]:
        fitted = Fitted.from_json(read_json(self.store, f"{self.folder}/{MODEL}.json"))
        verified = read_verified(self.store, self.folder) if self.has_verified else NOTHING_VERIFIED
        catalog = self.files.catalog
        conflicts = conflicting_rows(catalog.duplicate_of, catalog.label)
        shard_names = catalog.shards["name"].to_pylist()

        def compute(unit: str) -> UnitResult:
            block_rows = self.files.block_rows
            start, stop = block_range(int(unit.removeprefix("part-")), self.table_rows, catalog.num_rows)
            # A part holds whole blocks: the config has `blocks.table_rows` as a multiple of `blocks.rows`.
            tables = [
                self._block(block, fitted, verified, conflicts, shard_names)
                for block in range(start // block_rows, num_blocks(stop, block_rows))
            ]
            table = pa.concat_tables([each for each, _ in tables])
            counted = _class_counts(table, catalog.num_classes)
            true = [counts for _, counts in tables if counts is not None]
            if true:
                counted["true"] = np.sum(true, axis=0)
            beside = {f"classes-{unit}.safetensors": counted}
            return UnitResult(table, beside, rows=stop - start)

        return compute

    def _block(
        self, block: int, fitted: Fitted, verified: Verified, conflicts: Array, shard_names: list[str]
    ) -> tuple[pa.Table, Array | None]:
        catalog = self.files.catalog
        start, stop = block_range(block, self.files.block_rows, catalog.num_rows)
        scores = self.files.read(block, fitted.sources)
        given = catalog.label[start:stop]
        neighbor_labels = np.where(scores.neighbors >= 0, catalog.label[np.maximum(scores.neighbors, 0)], NO_LABEL)
        # Without paths nobody has counted neighbours: a label of at most L rows cannot give a row L others.
        few = (
            scores.num_paths < self.num_neighbors
            if scores.num_paths is not None
            else catalog.class_counts[given] <= self.num_neighbors
        )
        known = verified.between(start, stop)
        posterior = fitted.judge(scores, given).confirmed(given, known)
        table = table_of_block(
            _identity(catalog, start, stop, shard_names),
            given,
            catalog.duplicate_of[start:stop],
            posterior,
            scores,
            neighbor_labels,
            few,
            self.threshold,
            known,
            np.isin(np.arange(start, stop), conflicts),
        )
        return table, posterior.counts(given)


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
    """Sums per class, which the parts add up to the table of classes."""
    given = table["given_label"].to_numpy()
    wrong = 1 - table["label_score"].to_numpy().astype(np.float64)
    issue = table["is_label_issue"].to_numpy()
    predicted = table["predicted_label"].to_numpy()
    moved = np.zeros((num_classes, num_classes + 1), np.int64)  # the last column: to none of the classes
    np.add.at(moved, (given[issue], np.where(predicted == NONE_OF_CLASSES, num_classes, predicted)[issue]), 1)
    return {
        "rows": np.bincount(given, minlength=num_classes).astype(np.int64),
        "wrong": np.bincount(given, weights=wrong, minlength=num_classes),
        "moved": moved,
    }


def merge_jobs(
    files: ScoreFiles,
    settings: MergeSection,
    score: str,
    num_neighbors: int,
    table_rows: int,
    seed: int,
    verified: VerifiedSource | None = None,
    reads: tuple[Job, ...] = (),
    old: ScoreFiles | None = None,
) -> tuple[FitJob, ApplyJob]:
    """The fit and the application of a run's merge; `reads`: the jobs that give the files; `old`: see `FitJob`."""
    fields = {
        "score": score,
        "names": files.names,
        "sample_rows": settings.sample_rows,
        "seed": seed,
        "threshold": settings.threshold,
        "num_neighbors": num_neighbors,
        "table_rows": table_rows,
        "verified": verified and verified.digest,
    }
    inputs = [*files.inputs(), *(() if old is None else old.inputs())]
    folder = f"merge-{fingerprint('merge', VERSION, fields, inputs)}"
    store = files.catalog.store
    fit = FitJob(store, folder, files, score, settings.sample_rows, seed, verified, old, after=reads)
    how = settings.threshold, num_neighbors, table_rows, verified is not None
    return fit, ApplyJob(store, folder, files, *how, after=(fit, *reads))
