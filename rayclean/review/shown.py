"""What a reviewer is shown of a row, beside the picture and its given label: what the run makes of it, or nothing."""

from __future__ import annotations

import math
from typing import Any

from rayclean.review.queue import Queue

Facts = dict[str, Any]


def judgement(queue: Queue, line: Facts) -> Facts:
    """What the table says of a row. Nothing in a sample: people take a suggestion more often than it is right.

    Args:
        queue: that the row is of.
        line: all its columns.
    """
    if queue.chosen is not None:
        nothing = dict.fromkeys(("suggestion", "probability", "label_score", "issue_kind", "duplicate_of"))
        return {"blind": True, **nothing, "is_label_issue": False, "scores": {}, "neighbors": []}
    scores = {name.removeprefix("score_"): _finite(line[name]) for name in line if name.startswith("score_")}
    near = zip(queue.told(line["neighbor_rows"]), line["neighbor_labels"], strict=True)
    return {
        "blind": False,
        "suggestion": queue.class_of(line["predicted_label"]),
        "probability": _finite(line["predicted_score"]),
        "label_score": _finite(line["label_score"]),
        "is_label_issue": line["is_label_issue"],
        "issue_kind": line["issue_kind"],
        "duplicate_of": None if line["duplicate_of"] is None else _picture_of(queue, line["duplicate_of"]),
        "scores": scores,
        "neighbors": [{**each, **(queue.class_of(label) or {})} for each, label in near],
    }


def likely_labels(queue: Queue, line: Facts) -> list[int]:
    """Labels that a row may have, where there are too many classes for all of them; in a sample the given one alone."""
    return [line["given_label"]] if queue.chosen is not None else [line["predicted_label"], *line["neighbor_labels"]]


def _picture_of(queue: Queue, row: int) -> Facts:
    """A row with its given label."""
    return {**queue.told([row])[0], **(queue.class_of(queue.line(row)["given_label"]) or {})}


def _finite(value: float | None) -> float | None:
    """What JSON can say."""
    return value if value is not None and math.isfinite(value) else None
