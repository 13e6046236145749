"""The merge of beliefs in memory: the model that a run fits, and the table that it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.catalog.columns_stage import find_duplicates
from rayclean.config import Config
from rayclean.memory.rows import Samples
from rayclean.merge.kinds import conflicting_rows
from rayclean.merge.models import Fitted, fit_model, fit_rows, is_near_row
from rayclean.merge.near import Near
from rayclean.merge.table import shard_column, table_of_block
from rayclean.schema import JOINT, NO_LABEL, Array
from rayclean.scores.block import BlockScores
from rayclean.storage.draws import uniform

MEMORY = "memory"


def fit_seen(config: Config, samples: Samples, block: BlockScores) -> Fitted:
    """Fits the model of `merge.score` to one belief that may have seen the labels."""
    name, labels = config.merge_score(), samples.labels
    chosen = sampled_rows(config, samples, block.belief.shape[1])
    near_rows = np.flatnonzero(is_near_row(config.run.seed, samples.draws, len(labels)))
    near = _near(labels, block, near_rows) if name == JOINT else None
    return fit_model(name, [block.take(chosen)], labels[chosen], near)


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
    duplicates = find_duplicates(samples.digests)
    table = table_of_block(
        identity,
        labels,
        duplicates,
        fitted.judge(block, labels),
        block,
        np.where(block.neighbors >= 0, labels[np.maximum(block.neighbors, 0)], NO_LABEL),
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


def _near(labels: Array, block: BlockScores, rows: Array) -> Near:
    """Some rows with their neighbours' beliefs and labels."""
    neighbors = block.neighbors[rows]
    beliefs = block.belief[neighbors]
    beliefs[neighbors < 0] = np.nan
    near_labels = np.where(neighbors < 0, NO_LABEL, labels[np.maximum(neighbors, 0)])
    return Near(block.belief[rows], beliefs, labels[rows], near_labels, near_labels)
