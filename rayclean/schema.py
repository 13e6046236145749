"""Every score and every column of the tables that people read: name, type, meaning, direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
Column: TypeAlias = tuple[str, pa.DataType, str]  # name, type, meaning
MAIN = "main"  # the training run whose network is scored


@dataclass(frozen=True)
class Score:
    """One score; higher always means that the given label is more likely right.

    Attributes:
        family: the idea that it comes from.
        mixture: densities of its one-dimensional mixture: beta for scores in [0, 1], Gaussian for unbounded ones,
            `exp` for minus a loss: beta on its exponential, which keeps small losses apart.
        needs_epochs: whether it is a sum over training epochs.
        meaning: for people.
        role: the training run that it is of, beside what its section of the config names.
        default: whether a run that names no scores has it: those that need no further training and few forwards.
        facts: raw columns of the table beside it.
        on_features: whether only heads on features have it, always.
    """

    name: str
    family: str
    mixture: Literal["beta", "gauss", "exp"]
    needs_epochs: bool
    meaning: str
    role: str = MAIN
    default: bool = True
    facts: tuple[Column, ...] = ()
    on_features: bool = False


# Ours, in the table's order; `rayclean.config.score_families` has those of others too.
_TRAJECTORY = (
    Score("loss", "trajectory", "exp", False, "minus the cross-entropy loss after the last epoch"),
    Score("ens_loss", "trajectory", "exp", True, "minus the loss, mean over all epochs"),
    Score("margin", "trajectory", "gauss", False, "given label's logit less the largest other, last epoch"),
    Score("aum", "trajectory", "gauss", True, "the margin, mean over all epochs (area under the margin)"),
    Score("wrong_events", "trajectory", "gauss", True, "minus the number of epochs with another prediction"),
)
_OTHERS = (
    Score("iofm", "interpolation", "beta", False, "belief along paths to same-label neighbours, all snapshots"),
    Score("iofm_last", "interpolation", "beta", False, "the same at the last snapshot alone"),
    Score("inn", "interpolation", "beta", False, "belief along paths to neighbours of any label", default=False),
    Score("vote", "vote", "beta", False, "share of the nearest rows of any label that have the given label"),
    Score("osm", "influence", "gauss", False, "minus the z-score of the influence on the model", default=False),
    Score(
        "osd",
        "influence",
        "gauss",
        False,
        "minus the mean z-score of uneven influence on validation",
        default=False,
        facts=(("osd_votes", pa.int16(), "classes whose OSD calls the label noisy; higher is more suspicious"),),
    ),
    Score(
        "aum_excess",
        "aum",
        "gauss",
        True,
        "how far the AUM passes that of threshold samples, below 0 is flagged",
        default=False,
    ),
    Score(
        "odd",
        "simulated",
        "exp",
        True,
        "minus the mean loss of the epochs up to ODD's",
        facts=(
            ("odd_quantile", pa.float32(), "share of random labels with a lower loss at ODD's epoch; lower is cleaner"),
            ("odd_drop", pa.bool_(), "ODD would drop the row at that epoch"),
        ),
    ),
)
# The papers' baselines come from networks of their own: cross-entropy, and cross-entropy with negative entropy.
_OF_ROLES = tuple(
    replace(score, name=f"{score.name}_{role}", meaning=f"{score.meaning}, role {role}", role=role, default=False)
    for role in ("ce", "ce_ne")
    for score in _TRAJECTORY
)
# Of heads on features that have not seen the row's label.
_BLIND = "by heads that have not seen the label"
_OUT_OF_FOLD = (
    Score("loss_oof", "out_of_fold", "exp", False, f"minus the loss {_BLIND}", default=False, on_features=True),
    Score("margin_oof", "out_of_fold", "gauss", False, f"the margin {_BLIND}", default=False, on_features=True),
)
SCORES = {score.name: score for score in (*_TRAJECTORY, *_OTHERS, *_OUT_OF_FOLD, *_OF_ROLES)}
# What stands where a label of 0..K-1, or a row, would: one name per meaning, here and nowhere else (docs/design.md, 6).
# In a truth, and in the table's `predicted_label` and `verified_label`:
NONE_OF_CLASSES = -1  # the sample is of none of the classes
UNKNOWN = -9  # nobody knows; files and tables have null there
# In labels that people have verified, by row, and in those of near rows:
NO_LABEL = -1  # there is none: nobody has looked, or there is no such near row
DROPPED = -2  # people say that the row is of none of the classes
# In a lesson:
LEFT_OUT = -1  # the row is not trained on
# In lists of rows or positions, and in `duplicate_of`:
NO_ROW = -1  # there is no such row
NONE_NAME = "none of the classes"  # for people
DROP = "drop"  # how people write DROPPED, where no class is called so
JOINT = "joint"  # of `merge.score`: not one score, but what all beliefs say
SHARD_TYPE = KIND_TYPE = pa.dictionary(pa.int32(), pa.string())


def drop_word(classes: Sequence[str]) -> str:
    """How people write `DROPPED` where these are the classes."""
    return DROP if DROP not in classes else f"{DROP}: {NONE_NAME}"


# What the merge says of a row or of a clip.
_JUDGEMENT = [
    ("label_score", pa.float32(), "probability that the given label is right; 1 clean, 0 wrong"),
    ("is_label_issue", pa.bool_(), "label_score is under merge.threshold"),
    ("predicted_label", pa.int32(), "the most likely true class; -1 where it is most likely none of the classes"),
    ("predicted_score", pa.float32(), "its probability, 0 to 1"),
]


def label_columns(scores: Iterable[Score]) -> list[Column]:
    """Columns of the final table, with these scores."""
    scores = tuple(scores)
    return [
        ("row", pa.int64(), "position in the catalog"),
        ("shard", SHARD_TYPE, "the tar, below the longest folder common to all shards"),
        ("key", pa.string(), "the sample's WebDataset key"),
        ("given_label", pa.int32(), "the label in the shard"),
        *_JUDGEMENT,
        ("issue_kind", KIND_TYPE, "what is wrong, as far as can be told; null where nothing is flagged"),
        (
            "verified_label",
            pa.int32(),
            "what people say (merge.verified): a class; -1 none of the classes; null where nobody has looked",
        ),
        *((f"score_{score.name}", pa.float32(), f"{score.meaning}; higher is cleaner") for score in scores),
        ("few_neighbors", pa.bool_(), "fewer than iofm.num other images of this label"),
        ("duplicate_of", pa.int64(), "the smallest row with equal pixels; null where there is none"),
        *(column for score in reversed(scores) for column in score.facts),  # in this order from the first release on
        ("neighbor_rows", pa.list_(pa.int64()), "the three nearest rows of any label at the last snapshot"),
        ("neighbor_labels", pa.list_(pa.int32()), "their given labels"),
    ]


def label_schema(scores: Iterable[Score]) -> pa.Schema:
    """The final table's Arrow schema; each column's meaning is in its metadata."""
    return pa.schema(
        [pa.field(name, kind, metadata={"meaning": meaning}) for name, kind, meaning in label_columns(scores)]
    )


def clip_schema(scores: tuple[str, ...]) -> pa.Schema:
    """The schema of the table of clips, where rows are frames; each column's meaning is in its metadata."""
    columns = [
        ("clip", pa.string(), "the clip, as the shards call it; frames with another given label are another line"),
        ("first_row", pa.int64(), "its first frame in the table of rows"),
        ("frames", pa.int32(), "its frames"),
        ("given_label", pa.int32(), "the label of all of them"),
        *_JUDGEMENT,
        *((f"score_{name}", pa.float32(), f"mean of the frames' {name}; higher is cleaner") for name in scores),
    ]
    return pa.schema([pa.field(name, kind, metadata={"meaning": meaning}) for name, kind, meaning in columns])


CLASS_SCHEMA = pa.schema(
    [
        pa.field("label", pa.int32(), metadata={"meaning": "given label"}),
        pa.field("name", pa.string(), metadata={"meaning": "its name"}),
        pa.field("rows", pa.int64(), metadata={"meaning": "rows with this given label"}),
        pa.field("issues", pa.int64(), metadata={"meaning": "rows of these with is_label_issue"}),
        pa.field(
            "noise_rate",
            pa.float64(),
            metadata={"meaning": "mean of 1 - label_score, 0 to 1; null without rows"},
        ),
        pa.field("predicted", pa.int32(), metadata={"meaning": "most common predicted_label among its issues"}),
        pa.field(
            "prior",
            pa.float64(),
            metadata={
                "meaning": "share of rows truly of this class; all sum to 1 less the share of none; null but by joint"
            },
        ),
        pa.field(
            "transition",
            pa.list_(pa.float64()),
            metadata={
                "meaning": "by given label: its probability for rows truly of this class; null but by joint, and where "
                "it is left out for the summary's transition_reason"
            },
        ),
    ]
)
