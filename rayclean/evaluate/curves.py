"""Scores as of each epoch: AUROC and mean over right and wrong labels, the papers' figures."""

from __future__ import annotations

from typing import NamedTuple

from rayclean.evaluate import metrics
from rayclean.schema import Array
from rayclean.scores.table import ScoreFiles


class Point(NamedTuple):
    """A score at one epoch: its AUROC, and its mean over the rows with right and with wrong labels."""

    auroc: float
    mean_clean: float
    mean_wrong: float


Curve = dict[int, Point]


def point(scores: Array, clean: Array) -> Point:
    """How a score stands, over the rows where it is defined."""
    defined, their_clean, _ = metrics.defined_only(scores, clean)
    means = (
        float(part.mean()) if len(part) else float("nan") for part in (defined[their_clean], defined[~their_clean])
    )
    return Point(metrics.auroc(defined, their_clean), *means)


def score_curves(files: ScoreFiles, known: Array, clean: Array) -> dict[str, Curve]:
    """Each score as of each epoch that it was taken at.

    Args:
        files: the run's scores.
        known: (N,) rows with a truth.
        clean: whether the labels of these are right.
    """
    curves: dict[str, Curve] = {}
    for reader in files.readers:
        for epoch, scores in reader.courses(files.num_rows):
            for name in scores.keys() & set(files.names):
                curves.setdefault(name, {})[epoch] = point(scores[name][known], clean)
    return curves
