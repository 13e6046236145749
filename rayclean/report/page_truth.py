"""Where labels are known to be right or wrong: by the truth of a benchmark, or by what people say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.evaluate.evaluate import Bin, truth_by_shard
from rayclean.evaluate.metrics import expected_calibration_error
from rayclean.report.page_numbers import NO_TRUTH, RIGHT, WRONG
from rayclean.schema import UNKNOWN, Array


@dataclass(frozen=True)
class Truth:
    """The truth of a run, as far as the report needs it.

    Attributes:
        known: (K,) rows of each given label with a truth.
        wrong: (K,) those of them whose label is wrong.
        labels: of the rows that were asked for, `UNKNOWN` where unknown.
    """

    known: Array
    wrong: Array
    labels: dict[int, int]

    @property
    def noise_rate(self) -> float | None:
        """Share of wrong labels; None where no truth is known."""
        return float(self.wrong.sum() / self.known.sum()) if self.known.sum() else None

    def noise_rate_of(self, label: int) -> float | None:
        """Share of wrong labels among those of a given label."""
        return float(self.wrong[label] / self.known[label]) if self.known[label] else None

    def of(self, rows: Array) -> Array:
        """(R,) int64 true labels of rows that were asked for, `UNKNOWN` where unknown."""
        return np.array([self.labels.get(row, UNKNOWN) for row in rows.tolist()], np.int64)


def no_truth(num_classes: int) -> Truth:
    """Stands for the truth in a run without one."""
    return Truth(np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64), {})


def read_some_truth(catalog: Catalog, rows: Array) -> Truth:
    """Counts the truth of all rows, shard by shard, and keeps that of some.

    Args:
        catalog: of the rows.
        rows: (R,) those to keep.
    """
    wanted = np.unique(rows)
    truth = no_truth(catalog.num_classes)
    for span, labels in truth_by_shard(catalog):
        given = catalog.label[span]
        known = labels != UNKNOWN
        truth.known[:] += np.bincount(given[known], minlength=len(truth.known))
        truth.wrong[:] += np.bincount(given[known & (labels != given)], minlength=len(truth.wrong))
        here = wanted[slice(*np.searchsorted(wanted, [span.start, span.stop]))]
        truth.labels.update(zip(here.tolist(), labels[here - span.start].tolist(), strict=True))
    return truth


def truth_groups(given: Array, truth: Array) -> dict[str, Array]:
    """Rows with right and wrong labels and those with no truth: (N,) bool each."""
    known = truth != UNKNOWN
    return {RIGHT: known & (given == truth), WRONG: known & (given != truth), NO_TRUTH: ~known}


@dataclass(frozen=True)
class Known:
    """Rows of which it is known whether their label is right.

    Attributes:
        scores: (V,) `label_score`, as the model judges by itself.
        right: (V,) bool.
        by_truth: whether a truth says so; else people do.
    """

    scores: Array
    right: Array
    by_truth: bool

    @property
    def source(self) -> str:
        """Where it is known from, for people."""
        if self.by_truth:
            return f"the truth of {len(self.right):,} rows"
        return f"{len(self.right):,} verified rows, as judged before people's word was taken"


@dataclass(frozen=True)
class Reliability:
    """How often labels are right, by the `label_score` that they have.

    Attributes:
        bins: those that have rows.
        error: expected calibration error, 0 to 1.
        source: where it is known from, for people.
    """

    bins: list[Bin]
    error: float
    source: str


def reliability(known: Known | None) -> Reliability | None:
    """Bins of probabilities beside the share of labels that are right; None where nothing is known."""
    if known is None:
        return None
    found = expected_calibration_error(known.scores, known.right)
    columns = found.num_rows.tolist(), found.mean_probability.tolist(), found.clean_share.tolist()
    return Reliability([Bin(*each) for each in zip(*columns, strict=True) if each[0]], found.error, known.source)
