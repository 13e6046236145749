"""A final table made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from rayclean.merge.table import shard_column
from rayclean.review.queue import Queue
from rayclean.schema import SCORES, label_schema

NAMES = ("ant", "bee", "cat")


def table(
    scores: Sequence[float], threshold: float = 0.5, verified: Sequence[int | None] | None = None, first: int = 0
) -> pa.Table:
    """Rows of two shards; row i has key k<i>, given label i % 3, suggestion (i + 1) % 3; row 3 is a copy of row 0."""
    rows = np.arange(first, first + len(scores))
    columns = {
        "row": rows,
        "shard": shard_column(rows % 2, ["a.tar", "b.tar"]),
        "key": [f"k{row}" for row in rows],
        "given_label": pa.array(rows % 3, pa.int32()),
        "label_score": pa.array(scores, pa.float32()),
        "is_label_issue": [score < threshold for score in np.array(scores, np.float32)],
        "predicted_label": pa.array((rows + 1) % 3, pa.int32()),
        "predicted_score": pa.array(np.full(len(rows), 0.75), pa.float32()),
        "issue_kind": pa.array([None] * len(rows), label_schema(()).field("issue_kind").type),
        "verified_label": pa.array([None] * len(rows) if verified is None else verified, pa.int32()),
        "score_loss": pa.array([float("nan") if row == 1 else -1.0 for row in rows], pa.float32()),
        "few_neighbors": [False] * len(rows),
        "duplicate_of": pa.array([0 if row == 3 else None for row in rows], pa.int64()),
        "neighbor_rows": [[0, 1]] * len(rows),
        "neighbor_labels": pa.array([[0, 2]] * len(rows), pa.list_(pa.int32())),
    }
    schema = label_schema([SCORES["loss"]])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def queue(scores: Sequence[float], held: int = 100, merge: str = "merge-1", names: Sequence[str] = NAMES) -> Queue:
    """The queue of such a table."""
    return Queue(merge, names, ds.dataset(table(scores)), held=held)
