"""The merge of samples in memory: the model that a run fits, and the table that it makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.config import Config
from rayclean.memory.rows import Samples
from rayclean.memory.scores import Scoring
from rayclean.merge.kinds import conflicting_rows
from rayclean.merge.models import Fitted, fit_model, fit_rows, is_near_row
from rayclean.merge.near import Near
from rayclean.merge.table import shard_column, table_of_block
from rayclean.merge.trust import Trust, agreement, trusted
from rayclean.schema import JOINT, NO_LABEL, Array
from rayclean.scores.block import BlockScores
from rayclean.scores.sources import Sources
from rayclean.storage.draws import uniform

MEMORY = "memory"


def fit_images(
    config: Config, samples: Samples, block: BlockScores, scoring: Scoring | None
) -> tuple[Fitted, BlockScores]:
    """Fits the model of `merge.score` to beliefs that may have seen the labels.

    Args:
        config: what is wanted.
        samples: N of them.
        block: their scores.
        scoring: has the beliefs of earlier snapshots and of other networks; None where there is one belief alone.

    Returns:
        The model, and the scores with the beliefs that it is applied to.
    """
    name, labels = config.merge_score(), samples.labels
    chosen = sampled_rows(config, samples, block.belief.shape[1])
    near, trust, first = None, None, None
    if name == JOINT:
        near_rows = np.flatnonzero(is_near_row(config.run.seed, samples.draws, len(labels)))
        if scoring is not None:
            first = scoring.first_neighbors()
            trust = _trust(scoring, labels, near_rows, first)
            block = replace(block, belief=scoring.belief(trust.sources))
        near = _near(labels, block, near_rows, first)
    return fit_model(name, [block.take(chosen)], labels[chosen], near, trust), block


def sampled_rows(config: Config, samples: Samples, num_classes: int) -> Array:
    """Marks the rows that a model is fitted to, (N,) bool."""
    rows = fit_rows(config.merge_score(), config.merge.sample_rows, num_classes)
    return np.asarray(uniform(config.run.seed, "merge.fit", samples.draws) < rows / len(samples.labels))


def merged(
    config: Config, samples: Samples, keys: list[str], block: BlockScores, fitted: Fitted, verified: Array | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The final table and what `summary_` says.

    Args:
        config: what is wanted.
        samples: N of them.
        keys: their names.
        block: their scores, with the belief that the model is applied to.
        fitted: the model of `merge.score`.
        verified: (N,) labels that people have verified, `NO_LABEL` elsewhere, `DROPPED` where no class is right.
    """
    labels, rows = samples.labels, np.arange(len(samples.labels))
    counts = np.bincount(labels, minlength=block.belief.shape[1])
    known = np.full(len(labels), NO_LABEL) if verified is None else verified
    looked_at = known != NO_LABEL
    if looked_at.any():
        fitted = fitted.calibrated(block.take(looked_at), labels[looked_at], known[looked_at])
    few = block.num_paths < config.iofm.num if block.num_paths is not None else counts[labels] <= config.iofm.num
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
        known,
        np.isin(rows, conflicting_rows(duplicates, labels)),
    )
    wrong = 1 - table["label_score"].to_numpy().astype(np.float64)
    low, high = fitted.noise_interval(float(wrong.mean()))
    summary = {
        "rows": len(labels),
        "issues": int(table["is_label_issue"].to_numpy().sum()),
        "noise_rate": float(wrong.mean()),
        "noise_rate_low": low,
        "noise_rate_high": high,
        "verified": fitted.calibration.num_verified,
        "calibrated": fitted.calibrated_by,
        "merge_score": fitted.name,
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
