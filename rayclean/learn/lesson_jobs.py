"""Lessons as units: what earlier steps have published becomes one file of labels and weights, by row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.config.learn_section import RetrainSection
from rayclean.decisions.verified import VerifiedSource
from rayclean.embed.beliefs import softmax
from rayclean.embed.table import Embedding
from rayclean.errors import InputError
from rayclean.learn.lessons import largest_losses, relabelled, retrain_cut, retrain_predicted, without
from rayclean.schema import DROPPED, LEFT_OUT, Array
from rayclean.scores.influence_scores import influence_scores
from rayclean.scores.influence_stage import FitJob, RawJob
from rayclean.scores.influence_votes import noisy_probable
from rayclean.scores.simulate_stage import JudgeJob
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.published import Published
from rayclean.storage.units import Job, UnitResult

VERSION = 1
LESSON = "lesson"
TABLE_COLUMNS = ["label_score", "predicted_label", "predicted_score"]


@dataclass(frozen=True)
class LessonJob(Job):
    """One unit: the labels of all rows, (N,) int32, `LEFT_OUT` where not trained on, and weights where there are any.

    Attributes:
        people: file of the labels that people gave, which stand above all others; None without.
        before: file of the lesson that it goes on from; None for all rows, with the given labels or people's.
    """

    stage: ClassVar[str] = "learn"
    advice: ClassVar[str] = ""  # what to change where no row is left
    catalog: Catalog
    people: str | None
    before: str | None

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [LESSON]

    @property
    def lesson(self) -> str:
        """The file."""
        return self.file(LESSON)

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            arrays = self._as_people_say(self.make(self.labels_before()))
            rows = int((arrays["labels"] >= 0).sum())
            if not rows:
                raise InputError(f"none of {self.catalog.num_rows} rows is left to train on: {self.advice}")
            return UnitResult(arrays, rows=rows)

        return compute

    def labels_before(self) -> Array:
        """(N,) int32."""
        file = self.before or self.people
        return np.array(self.catalog.label if file is None else map_arrays(self.store, file)["labels"])

    def _as_people_say(self, arrays: dict[str, Array]) -> dict[str, Array]:
        if self.people is None:
            return arrays
        said = map_arrays(self.store, self.people)
        arrays["labels"] = np.where(said["is_verified"], said["labels"], arrays["labels"]).astype(np.int32)
        if "weights" in arrays:
            arrays["weights"] = np.where(said["is_verified"], np.float32(1), arrays["weights"])
        return arrays

    @abstractmethod
    def make(self, labels: Array) -> dict[str, Array]:
        """The arrays of the file, from the labels before."""


@dataclass(frozen=True)
class PeopleLesson(LessonJob):
    """The given labels, but where people have decided: theirs, or none where no class fits."""

    advice: ClassVar[str] = "people have dropped them all"
    source: VerifiedSource

    def make(self, labels: Array) -> dict[str, Array]:
        """With `is_verified`, (N,) bool."""
        verified, is_verified = self.source.find(self.catalog), np.zeros(len(labels), bool)
        labels[verified.rows] = np.where(verified.labels == DROPPED, LEFT_OUT, verified.labels)
        is_verified[verified.rows] = True
        return {"labels": labels, "is_verified": is_verified}


@dataclass(frozen=True)
class TableLesson(LessonJob):
    """What the final table thinks is right."""

    advice: ClassVar[str] = "lower learn.retrain.cut"
    settings: RetrainSection
    cut: float

    def make(self, labels: Array) -> dict[str, Array]:
        """By cut, by weight or by prediction."""
        columns = read_columns(self.catalog, TABLE_COLUMNS)
        score, cut = columns["label_score"], self.cut
        if self.settings.by == "predicted":
            predicted = columns["predicted_label"], columns["predicted_score"]
            kept = retrain_predicted(labels, score, *predicted, cut, self.settings.sure)
        else:
            kept = retrain_cut(labels, score, 0.0 if self.settings.by == "weight" else cut)
        arrays = {"labels": kept}
        if self.settings.by == "weight":
            arrays["weights"] = score.astype(np.float32)
        return arrays


def read_columns(catalog: Catalog, names: list[str]) -> dict[str, Array]:
    """Columns of the final table by row, nulls as NaN.

    Raises:
        InputError: there is none, or it is of other rows than the catalog.
    """
    published = Published.open(catalog.store)
    tables = [published.read(part, names) for part in published.parts]
    if (found := sum(map(len, tables))) != catalog.num_rows:
        raise published.of_other_rows(f"{found:,} rows", f"{catalog.num_rows:,}")
    return {name: np.concatenate([t[name].to_numpy(zero_copy_only=False) for t in tables]) for name in names}


@dataclass(frozen=True)
class OddLesson(LessonJob):
    """Without the rows that ODD drops."""

    advice: ClassVar[str] = "raise simulated_loss.percentile, or take a later simulated_loss.epoch"
    judge: JudgeJob

    def make(self, labels: Array) -> dict[str, Array]:
        """Rows with a loss above the percentile of random labels go."""
        units = (map_arrays(self.store, self.judge.file(unit)) for unit in self.judge.units())
        return {"labels": without(labels, np.concatenate([each["odd_drop"] for each in units]))}


@dataclass(frozen=True)
class RankLesson(LessonJob):
    """A round of Influential Rank: without the rows that are noisy-probable, or as many of the largest loss.

    Attributes:
        raw: influences of all rows.
        fitted: what makes them z-scores and votes.
        num_votes: votes that a removed row has at least.
        small_loss: whether the rows of the largest loss go instead.
    """

    advice: ClassVar[str] = "raise influence.gamma"
    raw: RawJob
    fitted: FitJob
    num_votes: int
    small_loss: bool

    def make(self, labels: Array) -> dict[str, Array]:
        """Rows with an OSM of 0 or more and enough votes go (Algorithm 1, lines 3 to 8)."""
        fitted = map_arrays(self.store, self.fitted.file(self.fitted.units()[0]))
        removed = np.concatenate(list(self._noisy(fitted))) & (labels >= 0)
        if self.small_loss:
            losses = np.concatenate([block["loss"] for block in blocks_of(self.raw.embedding, self.catalog)])
            removed = largest_losses(losses, labels >= 0, int(removed.sum()))
        return {"labels": without(labels, removed)}

    def _noisy(self, fitted: Mapping[str, Array]) -> Iterator[Array]:
        for unit in self.raw.units():
            raw = map_arrays(self.store, self.raw.file(unit))
            scores = influence_scores(raw, fitted, self.raw.settings.standardize)
            yield noisy_probable(-scores["osm"], scores["osd_votes"], self.num_votes)


def blocks_of(embedding: Embedding, catalog: Catalog) -> Iterator[Mapping[str, Array]]:
    """The arrays of an embedding, block by block."""
    return (embedding.block(index) for index in range(-(-catalog.num_rows // embedding.block_rows)))


@dataclass(frozen=True)
class RelabelLesson(LessonJob):
    """The corrected set: removed rows with the last classifier's labels, where it is sure.

    Attributes:
        embedding: of the last classifier.
        sure: S.
    """

    advice: ClassVar[str] = "lower learn.rank.keep"
    embedding: Embedding
    sure: float

    def make(self, labels: Array) -> dict[str, Array]:
        """See `lessons.relabelled`."""
        size, total, parts = self.embedding.block_rows, self.catalog.num_rows, []
        for start in range(0, total, size):
            rows = np.arange(start, min(start + size, total))
            probabilities = softmax(self.embedding.logits(rows))
            parts.append(relabelled(labels[rows], probabilities, self.sure))
        return {"labels": np.concatenate(parts)}


def lesson_folder(kind: str, fields: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """Where a lesson lies."""
    return f"lesson-{fingerprint(f'lesson-{kind}', VERSION, fields, inputs)}"
