"""Which weight decay suits a lesson on features: heads that have not seen its labels tell [our choice].

The test has no part in it. Where rows are verified that nothing is trained on, these judge; else each row's label by
the head that is blind to it. What is compared is the likelihood at each one's best temperature: strong decay makes
heads unsure of all classes alike, which changes no prediction (docs/methods.md, section 6).

Letters: N rows, R of them, d features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from rayclean.catalog.features import RowFeatures, StandardFeatures
from rayclean.catalog.groups import smallest_draws as smallest_of_groups
from rayclean.catalog.table import Catalog
from rayclean.learn.phase import Exam
from rayclean.learn.targets import read_lesson
from rayclean.schema import Array
from rayclean.storage.draws import smallest_draws, uniform
from rayclean.storage.units import Job, UnitResult
from rayclean.train.batches import Lesson
from rayclean.train.head_loop import HeadTask, head_epochs
from rayclean.train.heads import Heads, HeadSettings
from rayclean.train.loop import Rank

CHOICE = "decay"
DECAY_ROWS = 50_000  # that heads learn from; their features are held at once
MOST_LOGITS = 2**25  # of rows by classes, fewer rows where there are so many classes: 256 MiB as float64
MOST_SHARPENED = 20.0
OUT_OF_FOLD, VERIFIED = "labels out of fold", "verified labels"


@dataclass(frozen=True)
class DecayJob(Job):
    """Trains heads of several weight decays on a lesson and judges them. One unit.

    Attributes:
        source: features of the rows.
        lesson: file of what is learned; None for all rows and the given labels.
        settings: how heads learn.
        seed: of all draws.
        known: verified samples; None without.
        device: where heads learn.
    """

    stage: ClassVar[str] = "learn"
    pool: ClassVar[str] = "gpu"
    suffix: ClassVar[str] = ".json"
    source: StandardFeatures
    lesson: str | None
    settings: HeadSettings
    seed: int
    known: Exam | None
    device: str

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [CHOICE]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""
        return lambda _: self._choose()

    def _choose(self) -> UnitResult:
        lesson = read_lesson(self.store, self.source.catalog, self.lesson)
        rows = self._drawn(lesson)
        features = self._features(self.source, rows)
        task = self._task(lesson, rows)
        heads = _trained(features, task)
        if self.known is None:
            judged_by, judged = OUT_OF_FOLD, self._out_of_fold(heads, features, task)
        else:
            judged_by, judged = VERIFIED, self._verified(heads, self.known)
        likelihoods, temperatures = zip(*judged, strict=True)
        return UnitResult(
            {
                "weight_decay": self.settings.weight_decays[int(np.argmax(likelihoods))],
                "weight_decays": list(self.settings.weight_decays),
                "likelihoods": list(likelihoods),
                "temperatures": list(temperatures),
                "judged_by": judged_by,
                "rows": len(rows),
            },
            rows=len(rows),
        )

    def _drawn(self, lesson: Lesson) -> Array:
        rows, catalog = lesson.rows, self.source.catalog
        most = min(DECAY_ROWS, MOST_LOGITS // catalog.num_classes)
        return rows[smallest_draws(self.seed, "learn.decay", catalog.draw_id[rows], most)]

    def _features(self, source: StandardFeatures, rows: Array) -> torch.Tensor:
        return torch.from_numpy(source.read(rows)).to(self.device)

    def _task(self, lesson: Lesson, rows: Array) -> HeadTask:
        catalog = self.source.catalog
        return HeadTask(
            targets=lesson.labels[rows] if lesson.targets is None else lesson.targets(rows),
            folds=folds_of(catalog, self.settings.folds, self.seed)[rows],
            num_classes=catalog.num_classes,
            settings=self.settings,
            seed=self.seed,
            rate=self.source.rate,
            weights=None if lesson.weights is None else lesson.weights[rows],
        )

    def _out_of_fold(self, heads: Heads, features: torch.Tensor, task: HeadTask) -> Iterator[Tempered]:
        for decay in range(len(self.settings.weight_decays)):
            yield tempered(heads.blind_logits(features, decay), task.targets, task.weights)

    def _verified(self, heads: Heads, known: Exam) -> Iterator[Tempered]:
        features = self._features(StandardFeatures(RowFeatures(known.catalog), self.source.folder), known.rows)
        for decay in range(len(self.settings.weight_decays)):
            yield tempered(heads.seeing_logits(features, decay), known.catalog.label[known.rows])


def folds_of(catalog: Catalog, num_folds: int, seed: int) -> Array:
    """(N,) int64 the fold of each row, drawn for its group: the same in any sharding."""
    smallest = smallest_of_groups(catalog.group, catalog.draw_id)
    return np.asarray((uniform(seed, "learn.fold", smallest) * num_folds).astype(np.int64))


def _trained(features: torch.Tensor, task: HeadTask) -> Heads:
    def rows(at: Array) -> torch.Tensor:
        return features[torch.from_numpy(at).to(features.device)]

    *_, (_, heads, _) = head_epochs(rows, task, Rank(0, 1))
    return heads


class Tempered(NamedTuple):
    """A likelihood, and the temperature that logits are divided by for it."""

    likelihood: float
    temperature: float


def tempered(logits: Array, targets: Array, weights: Array | None = None) -> Tempered:
    """The largest `likelihood` that logits have when they are divided by one number of 1/20 to 20."""
    found = minimize_scalar(
        lambda log: -likelihood(logits * np.exp(log), targets, weights),
        bounds=(-np.log(MOST_SHARPENED), np.log(MOST_SHARPENED)),
        method="bounded",
    )
    return Tempered(-float(found.fun), float(np.exp(-found.x)))


def likelihood(logits: Array, targets: Array, weights: Array | None = None) -> float:
    """Mean of sum_k t_k log f_k over rows, by their weights: 0 at best.

    Args:
        logits: (R, K).
        targets: (R,) integers 0..K-1, or (R, K) with what each class has of a row.
        weights: (R,) at least 0; None where all count alike.
    """
    logs = log_softmax(logits.astype(np.float64), axis=1)
    each = logs[np.arange(len(logs)), targets] if targets.ndim == 1 else (targets * logs).sum(axis=1)
    return float(np.average(each, weights=None if weights is None else weights.astype(np.float64)))
