"""The merge of samples in memory: the model that a run fits, and the table that it makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.arrays import Array
from rayclean.config import Config
from rayclean.memory import Samples
from rayclean.memory_scores import Scoring
from rayclean.merge.kinds import conflicting_rows
from rayclean.merge.models import fit_model, fit_rows, is_near_row
from rayclean.merge.near import Near
from rayclean.merge.table import NO_LABEL, shard_column, table_of_block
from rayclean.merge.trust import Trust, agreement, trusted
from rayclean.schema import JOINT
from rayclean.scores.block import BlockScores
from rayclean.scores.sources import Sources
from rayclean.storage.draws import uniform

MEMORY = "memory"


def merged(
    config: Config, samples: Samples, keys: list[str], block: BlockScores, scoring: Scoring | None
) -> tuple[pa.Table, dict[str, Any]]:
    """Fits the model of `merge.score`, and returns the final table and what `summary_` says.

    Args:
        config: what is wanted.
        samples: N of them.
        keys: their names.
        block: their scores.
        scoring: has the beliefs of earlier snapshots and of other networks; None where there is one belief alone.
    """
    name = config.merge_score()
    labels, rows = samples.labels, np.arange(len(samples.labels))
    num_classes = block.belief.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    share = fit_rows(name, config.merge.sample_rows, num_classes) / len(labels)
    chosen = uniform(config.run.seed, "merge.fit", samples.draws) < share
    near, trust, first = None, None, None
    if name == JOINT:
        near_rows = np.flatnonzero(is_near_row(config.run.seed, samples.draws, len(labels)))
        if scoring is not None:
            first = scoring.first_neighbors()
            trust = _trust(scoring, labels, near_rows, first)
            block = replace(block, belief=scoring.belief(trust.sources))
        near = _near(labels, block, near_rows, first)
    fitted = fit_model(name, [block.take(chosen)], labels[chosen], near, trust)
    few = block.num_paths < config.iofm.least if block.num_paths is not None else counts[labels] <= config.iofm.least
    identity = {"row": pa.array(rows), "shard": shard_column(np.zeros_like(rows), [MEMORY]), "key": pa.array(keys)}
    duplicates = _duplicates(samples.digests)
    table = table_of_block(
        identity,
        labels,
        duplicates,
        fitted.judge(block, labels),
        block,
        np.where(block.neighbors >= 0, labels[np.maximum(block.neighbors, 0)], -1),
        few,
        config.merge.threshold,
        np.full(len(labels), NO_LABEL),
        np.isin(rows, conflicting_rows(duplicates, labels)),
    )
    probability = table["label_score"].to_numpy().astype(np.float64)
    summary = {
        "rows": len(labels),
        "issues": int(table["is_label_issue"].to_numpy().sum()),
        "noise_rate": float((1 - probability).mean()),
        "merge_score": name,
        "belief_epoch": fitted.sources.epoch,
        "belief_roles": list(fitted.sources.roles),
        "reliable": fitted.model.reliable,
        "reason": fitted.model.reason,
    }
    return table, summary


def _trust(scoring: Scoring, labels: Array, rows: Array, first: Array) -> Trust:
    """Whose beliefs are taken, judged on some rows; `first` (N, 3) are the neighbours by the first snapshot."""
    near = first[rows]
    near_labels = np.where(near >= 0, labels[np.maximum(near, 0)], -1)
    return trusted(
        {e: agreement(scoring.belief(Sources(e))[rows], labels[rows], near_labels) for e in scoring.epochs},
        {role: agreement(scoring.belief_of_role(role)[rows], labels[rows], near_labels) for role in scoring.others},
    )


def _near(labels: Array, block: BlockScores, rows: Array, first: Array | None) -> Near:
    """Some rows with their neighbours' beliefs; `first` (N, 3) are those by the first snapshot, where there is one."""
    beliefs = block.belief[block.neighbors[rows]]
    beliefs[block.neighbors[rows] < 0] = np.nan
    lists = block.neighbors[rows], (block.neighbors if first is None else first)[rows]
    found = (np.where(each < 0, NO_LABEL, labels[np.maximum(each, 0)]) for each in lists)
    return Near(block.belief[rows], beliefs, labels[rows], *found)


def _duplicates(digests: Array) -> Array:
    """For each row the smallest row with an equal digest, -1 where that is the row itself."""
    _, first, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    smallest = first[inverse.ravel()]
    return np.where(smallest == np.arange(len(digests)), -1, smallest)
