"""From what was read of a run to what the pages show: plots, lists and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rayclean.config.score_families import score_of
from rayclean.evaluate.evaluate import auroc
from rayclean.report.page_facts import Classes, ClassLine, Confusion, CopyGroup, NearPair, Sample, ScoreView
from rayclean.report.page_near import NearPairs
from rayclean.report.page_numbers import Spread, agreement, spread
from rayclean.report.page_svg import heat_map, histogram
from rayclean.report.page_table import Seen
from rayclean.report.page_truth import Truth, truth_groups
from rayclean.schema import NONE_NAME, NONE_OF_CLASSES, UNKNOWN, Array

HEAT_CLASSES = 40
CONFUSIONS = 15
CLASS_LINES = 2000


def heat_classes(issues: Array) -> Array:
    """The labels that the heat map shows: those of the most flagged rows, ascending."""
    return np.sort(np.argsort(-issues, kind="stable")[:HEAT_CLASSES])


def class_lines(
    table: Sequence[Mapping[str, Any]], truth: Truth, classes: Classes, shown: Array
) -> tuple[list[ClassLine], int]:
    """The classes by label, and how many are left out: those with the fewest flagged rows, where there are many.

    Args:
        table: of classes.
        truth: of the run.
        classes: their names.
        shown: (K,) rows of each that have a picture.
    """
    lines = [
        ClassLine(
            label=line["label"],
            name=line["name"],
            rows=line["rows"],
            issues=line["issues"],
            noise_rate=line["noise_rate"],
            true_noise_rate=truth.noise_rate_of(line["label"]),
            predicted=None if line["predicted"] is None else classes.name(line["predicted"]),
            shown=int(shown[line["label"]]),
        )
        for line in table
    ]
    most = sorted(lines, key=lambda line: (-line.issues, line.label))[:CLASS_LINES]
    return sorted(most, key=lambda line: line.label), len(lines) - len(most)


def label_heat_map(
    transition: Array | None, reason: str | None, seen: Seen, shown: Array, classes: Classes
) -> tuple[Markup | None, str]:
    """How labels go wrong, and what the picture shows.

    Args:
        transition: (M, M) of the `shown` classes: P(given label | true class); None where the merge has none.
        reason: why it has none, where it says so.
        seen: the counts that take its place.
        shown: (M,) labels.
        classes: their names.
    """
    some = (
        f" Shown are the {len(shown)} classes with the most flagged samples." if len(shown) < len(classes.names) else ""
    )
    names = [classes.name(label) for label in shown.tolist()]
    columns = [*names, NONE_NAME] if transition is None and seen.confused[:, -1].any() else names
    if not len(shown) or not seen.confused.any():
        return None, ""
    if transition is not None:
        values, note = (
            transition,
            "A line for each true class: which labels its samples were given, as the merge estimates it.",
        )
        words = "of the samples that are truly {} were labelled {}"
    else:
        values = (seen.confused / np.maximum(seen.confused.sum(axis=1, keepdims=True), 1))[:, : len(columns)]
        note = "A line for each given label: what the prediction makes of its samples."
        note += f" The merge has no transition matrix: {reason}." if reason else ""
        words = "of the samples that are labelled {} are predicted to be {}"

    def tell(i: int, j: int) -> str:
        return f"{values[i, j]:.1%} {words.format(names[i], columns[j])}"

    heat = heat_map(values, names, columns, "how labels go wrong", tell, lambda value: f"{100 * value:.0f}")
    return heat, note + some


def confusions(seen: Seen, shown: Array) -> list[Confusion]:
    """The most common pairs of given and other predicted label among flagged rows of the shown classes."""
    counts, labels = seen.flagged.copy(), [*shown.tolist(), NONE_OF_CLASSES]
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [Confusion(labels[i], labels[j], int(counts[i, j])) for i, j in pairs if counts[i, j]]


def score_views(columns: Mapping[str, Array], given: Array, truth: Array) -> list[ScoreView]:
    """Each score's histogram with two fitted components, and its AUROC.

    Args:
        columns: `score_<name>`, (N,) of a sample of the rows, NaN where undefined.
        given: (N,) labels.
        truth: (N,) labels, `UNKNOWN` where unknown.
    """
    known, groups = truth != UNKNOWN, truth_groups(given, truth)
    views = []
    for column, values in columns.items():
        name = column.removeprefix("score_")
        found = spread(name, values, groups)
        area = auroc(values[known], given[known] == truth[known])
        plot = histogram(found, f"histogram of {name}")
        views.append(ScoreView(name, score_of(name).meaning, plot, _notes(found), None if math.isnan(area) else area))
    return views


def _notes(found: Spread) -> list[str]:
    mixture = found.mixture
    notes = ["drawn is exp(score), to which the components are fitted"] if found.is_exp else []
    if found.clean is None:
        notes.append(f"no components: {mixture.reason}")
    else:
        reason = f"; not to be relied on: {mixture.reason}" if not mixture.reliable else ""
        notes.append(f"{mixture.noise_rate:.1%} in the noisy component{reason}")
    return [*notes, f"{found.undefined:,} rows have no such score"] if found.undefined else notes


def agreement_map(columns: Mapping[str, Array]) -> Markup | None:
    """The scores' rank correlations; None where there is but one."""
    if len(columns) < 2:
        return None
    values, names = agreement(list(columns.values())), [name.removeprefix("score_") for name in columns]

    def tell(i: int, j: int) -> str:
        return f"{names[i]} and {names[j]}: {values[i, j]:.2f}"

    return heat_map(values, names, names, "rank correlation of the scores", tell, lambda value: f"{value:.2f}", power=1)


def copy_groups(seen: Seen, samples: Mapping[int, Sample]) -> list[CopyGroup]:
    """Groups of copies with their samples."""
    return [CopyGroup([samples[row] for row in group.rows], group.total) for group in seen.copies.values()]


def near_samples(found: NearPairs | None, samples: Mapping[int, Sample]) -> list[NearPair]:
    """Near pairs with their samples."""
    if found is None:
        return []
    pairs = zip(found.rows.tolist(), found.closeness.tolist(), strict=True)
    return [NearPair(samples[first], samples[second], closeness) for (first, second), closeness in pairs]
