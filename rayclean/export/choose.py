"""Which rows of the table stay, and with which labels: one order of all rows, cut at one place.

The order is by the probability that the label to use is right; of equal ones the smaller row counts as more likely
right. So what stays and what goes are always the two sides of one cut, whichever of them is asked for, and a row's
fate follows from its line and the cut alone: workers decide for themselves, and nothing of the size of the run is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayclean.export.cut import NEVER, Cut, find_cut, key_of
from rayclean.export.options import ExportOptions
from rayclean.schema import NONE_OF_CLASSES, UNKNOWN, Array

COLUMNS = ("row", "given_label", "label_score", "predicted_label", "predicted_score", "verified_label")


class Reason(IntEnum):
    """Why a row stays or goes; `REASONS` has their names."""

    LIKELY_RIGHT = 0
    RELABELLED = 1
    VERIFIED = 2
    LIKELY_WRONG = 3
    VERIFIED_WRONG = 4
    DROPPED = 5
    NONE_OF_THE_CLASSES = 6


REASONS = tuple(reason.name.lower() for reason in Reason)


def reasons_of(tallies: Array) -> dict[str, int]:
    """Counts by the reasons' names; those that no row has are left out."""
    return {name: int(count) for name, count in zip(REASONS, tallies, strict=True) if count}


class Lines(NamedTuple):
    """Columns of N rows.

    Attributes:
        row: (N,) int64.
        given: (N,) int32 given labels.
        score: (N,) float32 `label_score`.
        predicted: (N,) int32.
        predicted_score: (N,) float32.
        verified: (N,) int32, `NONE_OF_CLASSES` or `UNKNOWN` where it is no label.
    """

    row: Array
    given: Array
    score: Array
    predicted: Array
    predicted_score: Array
    verified: Array

    @classmethod
    def of(cls, table: pa.Table | pa.RecordBatch) -> Lines:
        """From the table's `COLUMNS`."""
        columns = [table[name].fill_null(UNKNOWN) if name == "verified_label" else table[name] for name in COLUMNS]
        return cls(*(column.to_numpy(zero_copy_only=False) for column in columns))


class Judged(NamedTuple):
    """What is known of N rows before the cut.

    Attributes:
        key: (N,) uint32, orders them by the probability that `label` is right; `NEVER` for rows that never stay.
        label: (N,) int32 to use, should the row stay.
        reason: (N,) int8, a `Reason`, should it stay; for rows that never do, why.
    """

    key: Array
    label: Array
    reason: Array


@dataclass(frozen=True)
class Rule:
    """All that a row's fate depends on, beside its line.

    Attributes:
        labels: see `ExportOptions`.
        sure: likewise, settled.
        cut: where the rows are divided.
    """

    labels: str
    sure: float
    cut: Cut

    def decide(self, lines: Lines) -> Decision:
        """What becomes of rows."""
        judged = judge(lines, self.labels, self.sure)
        key = judged.key.astype(np.int64)
        kept = (key > self.cut.key) | ((key == self.cut.key) & (lines.row <= self.cut.last_row))
        kept &= key != NEVER
        reason = np.where(kept | (key == NEVER), judged.reason, Reason.LIKELY_WRONG).astype(np.int8)
        return Decision(kept, np.where(kept, judged.label, lines.given), reason)


class Decision(NamedTuple):
    """What becomes of N rows.

    Attributes:
        kept: (N,) bool.
        label: (N,) int32 to use; of a row that goes, the given one.
        reason: (N,) int8, a `Reason`.
    """

    kept: Array
    label: Array
    reason: Array

    def tally(self) -> Array:
        """Rows of each reason."""
        return np.bincount(self.reason, minlength=len(Reason))


def judge(lines: Lines, labels: str, sure: float) -> Judged:
    """The label to use of each row, and how likely it is right.

    A prediction is taken where it differs from the given label, has at least the probability `sure`, and is likelier
    than the given label [the last is our choice; by the joint merge it follows from sure > 0.5]; where it says that
    the row is of none of the classes, the row never stays. What people say comes first: where their label is not taken
    (`given`) and is another, the row never stays.

    Args:
        lines: of N rows.
        labels: `given`, `verified` or `predicted`.
        sure: see above.
    """
    given, verified = lines.given, lines.verified
    seen, score = verified != UNKNOWN, np.clip(np.nan_to_num(lines.score), 0, 1).astype(np.float32)
    of_none = np.zeros(len(given), bool)
    label, right, reason = given.copy(), score, np.full(len(given), Reason.LIKELY_RIGHT, np.int8)
    if labels == "predicted":
        sure_of = (lines.predicted_score >= sure) & (lines.predicted_score > score)
        taken = ~seen & (lines.predicted != given) & sure_of
        label[taken], reason[taken] = lines.predicted[taken], Reason.RELABELLED
        right = np.where(taken, np.minimum(lines.predicted_score, np.float32(1)), right)
        of_none = taken & (lines.predicted == NONE_OF_CLASSES)
        label[of_none], reason[of_none] = given[of_none], Reason.NONE_OF_THE_CLASSES
    agreed = seen & ((verified == given) if labels == "given" else (verified != NONE_OF_CLASSES))
    label[agreed], reason[agreed] = verified[agreed], Reason.VERIFIED
    never = seen & ~agreed
    reason[never] = np.where(verified[never] == NONE_OF_CLASSES, Reason.DROPPED, Reason.VERIFIED_WRONG)
    key = key_of(np.where(agreed, np.float32(1), right).astype(np.float32))
    return Judged(np.where(never | of_none, np.uint32(NEVER), key), label, reason)


def settle(
    options: ExportOptions, threshold: float, stream: Callable[[], Iterable[Lines]], caution: float = 0.0
) -> Rule:
    """The rule of an export; reads the table where its cut has to be found.

    Args:
        options: what was asked for.
        threshold: the cut where nothing says another.
        stream: all rows, in order, each time that it is called.
        caution: of `caution_of`, for a precision.
    """
    labels, sure = options.labels, options.least_sure
    if options.budget is None and options.precision is None:
        cut = Cut.at(threshold if options.cut is None else options.cut)
    else:
        cut = find_cut(options, lambda: ((lines.row, judge(lines, labels, sure).key) for lines in stream()), caution)
    return Rule(labels, sure, cut)
