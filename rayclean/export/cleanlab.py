"""A list for cleanlab, and beside it beliefs, `pred_probs.npy`, as its functions take them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

from rayclean.embed.beliefs import MAX_DENSE_CLASSES
from rayclean.errors import RaycleanError
from rayclean.export.files import publish_file
from rayclean.export.lists import GIVEN, IDENTITY, SCORE, field, make_list
from rayclean.export.work import Made, Work
from rayclean.scores.sources import Sources
from rayclean.scores.table import ScoreFiles
from rayclean.storage.units import block_range, num_blocks

PRED_PROBS = "pred_probs.npy"
MAX_BYTES = 2**30
# Datalab's names, and CleanLearning's for the score.
SCHEMA = pa.schema(
    [
        *IDENTITY,
        field("is_label_issue", pa.bool_(), "the row does not stay with its given label"),
        SCORE,
        field("label_quality", pa.float32(), "the same as label_score"),
        GIVEN,
        field("predicted_label", pa.int32(), "the most likely true class; -1 where it is none of them"),
    ]
)


def make_cleanlab(work: Work) -> Made:
    """`cleanlab`: one line per row, and what the networks believe."""
    made = make_list(work, SCHEMA)
    made.notes.append(_beliefs(work, made))
    return made


def _beliefs(work: Work, made: Made) -> str:
    why = why_no_beliefs(work.chosen.table.num_rows, len(work.names))
    if why is None and work.options.removed:
        why = "only some rows are listed"
    if why is None:
        try:
            made.files.append(publish_file(work.out, PRED_PROBS, work.beliefs()))
        except (OSError, RaycleanError) as error:
            why = f"the run does not have them any more ({error})"
    if why is not None:
        return f"There is no `{PRED_PROBS}`: {why}."
    if work.chosen.table.published.summary().get("belief_sources"):
        return (
            f"`{PRED_PROBS}` has one line per row, in the list's order: what heads on features and near rows believe "
            "of it, none of which has seen its own label: out-of-sample probabilities, as cleanlab recommends."
        )
    return (
        f"`{PRED_PROBS}` has one line per row, in the list's order: what the networks believe of it without its "
        "own label as evidence. They were trained on these rows, so these are not the out-of-sample probabilities that "
        "cleanlab recommends."
    )


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
