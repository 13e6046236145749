"""Beliefs beside the list for cleanlab: `pred_probs.npy`, as its functions take them."""

from __future__ import annotations

import io

import numpy as np

from rayclean.embed.beliefs import MAX_DENSE_CLASSES
from rayclean.scores.sources import Sources
from rayclean.scores.table import ScoreFiles
from rayclean.storage.units import block_range, num_blocks

PRED_PROBS = "pred_probs.npy"
MAX_BYTES = 2**30


def why_no_beliefs(num_rows: int, num_classes: int) -> str | None:
    """Why there are none, None where there are: beliefs over many classes lack their small entries."""
    if num_classes > MAX_DENSE_CLASSES:
        return f"beliefs over more than {MAX_DENSE_CLASSES} classes are kept in part only"
    num_bytes = 4 * num_rows * num_classes
    if num_bytes > MAX_BYTES:
        return f"{num_rows} rows of {num_classes} classes would take {num_bytes / 2**30:.0f} GiB of memory"
    return None


def pred_probs(files: ScoreFiles, sources: Sources) -> bytes:
    """(N, K) float32 beliefs of all rows, without their own labels as evidence; each row sums to 1.

    Args:
        files: the run's scores.
        sources: whose beliefs the merge took.
    """
    beliefs = np.empty((files.num_rows, files.catalog.num_classes), np.float32)
    for block in range(num_blocks(files.num_rows, files.block_rows)):
        start, stop = block_range(block, files.block_rows, files.num_rows)
        belief = files.belief(block, sources)
        beliefs[start:stop] = belief / belief.sum(axis=1, keepdims=True)
    sink = io.BytesIO()
    np.save(sink, beliefs, allow_pickle=False)
    return sink.getvalue()
