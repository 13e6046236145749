"""The final table's columns from a block's scores and the fitted model: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from rayclean.merge.joint import Posterior
from rayclean.merge.kinds import KIND_NAMES, Kind, issue_kinds
from rayclean.schema import DROPPED, NO_LABEL, NONE_OF_CLASSES, SHARD_TYPE, Array, label_schema
from rayclean.scores.block import BlockScores


def nullable(values: Array, missing: Array, kind: pa.DataType) -> pa.Array:
    """A column with nulls where `missing`."""
    return pa.array(values, kind, mask=missing)


def evidence(neighbors: Array, labels: Array) -> tuple[pa.Array, pa.Array]:
    """Lists of the nearest rows and of their given labels; a row with fewer neighbours has shorter lists.

    Args:
        neighbors: (N, 3) rows, `NO_ROW` at the end where there are fewer.
        labels: (N, 3) their labels.
    """
    there = neighbors >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    rows = pa.ListArray.from_arrays(offsets, pa.array(neighbors[there], pa.int64()))
    return rows, pa.ListArray.from_arrays(offsets, pa.array(labels[there], pa.int32()))


def judgement(posterior: Posterior, scores: Mapping[str, Array], threshold: float) -> dict[str, pa.Array]:
    """The columns that a row and a clip have alike: what the merge says, and each score.

    Args:
        posterior: what the model makes of them.
        scores: name -> (N,), NaN where undefined.
        threshold: `merge.threshold`.
    """
    columns = {
        "label_score": pa.array(posterior.label_score, pa.float32()),
        "is_label_issue": pa.array(posterior.label_score < threshold),
        "predicted_label": pa.array(posterior.predicted, pa.int32()),
        "predicted_score": pa.array(posterior.predicted_score, pa.float32()),
    }
    for name, values in scores.items():
        columns[f"score_{name}"] = nullable(values.astype(np.float32), np.isnan(values), pa.float32())
    return columns


def table_of_block(
    identity: dict[str, pa.Array],
    given: Array,
    duplicate_of: Array,
    posterior: Posterior,
    block: BlockScores,
    neighbor_labels: Array,
    few_neighbors: Array,
    threshold: float,
    verified: Array,
    conflicts: Array,
) -> pa.Table:
    """One block of the final table.

    Args:
        identity: columns row, shard and key.
        given: (N,) given labels.
        duplicate_of: (N,) `NO_ROW` where there is none.
        posterior: what the model makes of them.
        block: all scores.
        neighbor_labels: (N, 3) given labels of `block.neighbors`.
        few_neighbors: (N,) bool.
        threshold: `merge.threshold`.
        verified: (N,) labels that people have verified, `NO_LABEL` where none is, `DROPPED` where no class fits.
        conflicts: (N,) bool, another row has equal pixels and another label.
    """
    rows, labels = evidence(block.neighbors, neighbor_labels)
    posterior = posterior.confirmed(given, verified)
    kinds = issue_kinds(posterior.seen, given, posterior.label_score < threshold, conflicts)
    dropped = verified == DROPPED
    # `issue_kinds` looks at the classes alone; that a row is of none of them, the posterior may say.
    of_none = (posterior.predicted == NONE_OF_CLASSES) & (kinds != Kind.NO_ISSUE) & (kinds != Kind.DUPLICATE)
    kinds[dropped | of_none] = Kind.NO_CLASS
    columns = identity | judgement(posterior, block.scores, threshold)
    columns |= {
        "issue_kind": pa.DictionaryArray.from_arrays(pa.array(kinds, mask=kinds < 0), KIND_NAMES),
        "verified_label": nullable(np.where(dropped, NONE_OF_CLASSES, verified), verified == NO_LABEL, pa.int32()),
        "given_label": pa.array(given, pa.int32()),
        "few_neighbors": pa.array(few_neighbors),
        "duplicate_of": nullable(duplicate_of, duplicate_of < 0, pa.int64()),
        "neighbor_rows": rows,
        "neighbor_labels": labels,
    }
    schema = label_schema(map(block.kind, block.scores))
    for name, values in block.facts.items():
        if name in schema.names:
            columns[name] = nullable(values, np.isnan(values), schema.field(name).type)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def shard_column(indexes: Array, names: list[str]) -> pa.Array:
    """The dictionary-encoded shard of each row."""
    return pa.DictionaryArray.from_arrays(pa.array(indexes, pa.int32()), pa.array(names, pa.string())).cast(SHARD_TYPE)
