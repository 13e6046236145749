"""Where the order of the rows is cut, found by counting where it is said as a number of rows or as a precision.

Probabilities are float32 from 0 to 1, whose bits, read as whole numbers, have the same order: one pass over the rows
counts by their upper bits, one by the lower bits where the cut falls, and one finds the row where the rows equal to it
are divided. Each pass holds some 2**15 counters, however many rows there are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logit

from rayclean.export.options import ExportOptions
from rayclean.schema import Array

NEVER = 0  # the key of a row that stays in no case
CAUTION = 1.25
LOW_BITS = 15
NUM_HIGH = (int(np.float32(1).view(np.uint32)) + 1 >> LOW_BITS) + 1
EVERY_ROW = np.iinfo(np.int64).max
# Probabilities of being wrong are summed in these, as whole numbers: exact for 2**30 rows, whatever the batches.
UNIT = 2.0**-32
Stream = Callable[[], Iterator[tuple[Array, Array]]]


@dataclass(frozen=True)
class Cut:
    """Rows stay from a key on; of those that have exactly this key, only those up to a row."""

    key: int
    last_row: int = EVERY_ROW

    @classmethod
    def at(cls, right: float) -> Cut:
        """Rows stay whose label is right with at least this probability, rounded to float32 as the table's are."""
        return cls(int(key_of(np.float32(right))))

    @property
    def right(self) -> float:
        """The smallest probability with which a row stays; above 1 where none does."""
        return float(right_of(np.uint32(self.key)))


def key_of(right: Array | np.float32) -> Array:
    """Whole numbers in the order of float32 probabilities; 0 is left for rows that never stay."""
    plain = np.asarray(right, np.float32) + np.float32(0)  # which makes -0 an ordinary 0
    return plain.view(np.uint32) + np.uint32(1)


def right_of(key: Array | np.uint32) -> Array:
    """The probabilities of keys; 0 for `NEVER`."""
    return (np.maximum(np.asarray(key, np.uint32), 1) - np.uint32(1)).view(np.float32)


def caution_of(summary: Mapping[str, Any]) -> float:
    """How much more likely right labels are taken to be than a table says, in log-odds, by its summary.

    A precision is kept where the share of wrong labels may well be smaller than found, down to the low end of its
    interval. Where people have verified labels, the table is taken at its word.
    """
    rate, low = summary["noise_rate"], summary.get("noise_rate_low")
    if low is None or summary.get("calibrated") != "none" or not 0 < low < rate < 1:
        return 0.0
    return float(CAUTION * (logit(rate) - logit(low)))


def find_cut(options: ExportOptions, stream: Stream, caution: float = 0.0) -> Cut:
    """The cut that a budget or a precision asks for.

    Args:
        options: has one of them.
        stream: rows and keys of all rows, in order, each time that it is called.
        caution: of `caution_of`, for a precision.
    """
    counts, wrong, never = np.zeros(NUM_HIGH, np.int64), np.zeros(NUM_HIGH, np.int64), 0
    for _, keys in stream():
        _add(counts, wrong, keys >> LOW_BITS, keys, caution)
        never += int(np.count_nonzero(keys == NEVER))
    ends = _removed_by(options, int(counts.sum()), never)
    high, removed, removed_wrong = _boundary(ends, counts, wrong, 0, 0)
    if high == NUM_HIGH:
        return Cut(int(key_of(np.float32(1))) + 1)
    counts, wrong = np.zeros(2**LOW_BITS, np.int64), np.zeros(2**LOW_BITS, np.int64)
    for _, keys in stream():
        here = keys[keys >> LOW_BITS == high]
        _add(counts, wrong, here & (2**LOW_BITS - 1), here, caution)
    low, removed, removed_wrong = _boundary(ends, counts, wrong, removed, removed_wrong)
    key = (high << LOW_BITS) + low
    equal = int(counts[low])
    stay = equal - ends.within(equal, int(wrong[low]) // equal, removed, removed_wrong)
    return Cut(key, EVERY_ROW if stay == equal else _nth_row(stream(), key, stay))


class _Budget(NamedTuple):
    """So many rows go."""

    rows: int

    def is_over(self, removed: Array, _: Array) -> Array:
        """Whether these are too many; the second number is how many of them are wrong, in `UNIT`."""
        return removed > self.rows

    def within(self, _: int, __: int, removed: int, ___: int) -> int:
        """How many of equal rows go, after others; not all of them do."""
        return self.rows - removed


class _Precision(NamedTuple):
    """As many rows go as keep their mean probability of being wrong at or above this one."""

    mean: float

    def is_over(self, removed: Array, wrong: Array) -> Array:
        return (removed > 0) & (wrong < self.mean / UNIT * removed)

    def within(self, equal: int, wrong: int, removed: int, removed_wrong: int) -> int:
        def is_over(more: int) -> bool:
            return bool(self.is_over(np.array(removed + more), np.array(removed_wrong + more * wrong)))

        return bisect_left(range(1, equal + 1), True, key=is_over)


def _removed_by(options: ExportOptions, total: int, never: int) -> _Budget | _Precision:
    if options.precision is not None:
        return _Precision(options.precision)
    assert options.budget is not None  # `settle` asks only then
    wanted = options.budget if options.removed else total - options.budget
    return _Budget(min(max(wanted, never), total))


def _add(counts: Array, wrong: Array, bins: Array, keys: Array, caution: float) -> None:
    """Adds a batch to its bins: how many rows, and how many of them are expected to be wrong, in `UNIT`."""
    counts += np.bincount(bins, minlength=len(counts))
    right = right_of(keys).astype(np.float64)
    weights = np.rint((1 - right) / ((1 - right) + right * np.exp(caution)) / UNIT)
    wrong += np.bincount(bins, weights, len(wrong)).astype(np.int64)  # exact up to 2**21 rows per batch


def _boundary(
    ends: _Budget | _Precision, counts: Array, wrong: Array, removed: int, removed_wrong: int
) -> tuple[int, int, int]:
    """The bin in which the rows that go end, and what goes before it; one past the bins where all go."""
    counted, summed = removed + np.cumsum(counts), removed_wrong + np.cumsum(wrong)
    over = ends.is_over(counted, summed) & (counts > 0)
    at = int(over.argmax()) if over.any() else len(counts)
    return (at, int(counted[at - 1]), int(summed[at - 1])) if at else (0, removed, removed_wrong)


def _nth_row(stream: Iterator[tuple[Array, Array]], key: int, nth: int) -> int:
    """The n-th row, from 1, that has a key."""
    for rows, keys in stream:
        here = rows[keys == key]
        if nth <= len(here):
            return int(here[nth - 1])
        nth -= len(here)
    raise AssertionError("unreachable")
