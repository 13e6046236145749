"""One pass over the final table for the report: a sample of it, its worst rows, its counts and equal pictures.

The table is streamed; what is held is the sample, the worst rows' numbers and no more than `GROUPS` groups of copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rayclean.merge.kinds import KIND_NAMES, Kind
from rayclean.report.page_numbers import Worst
from rayclean.report.page_words import Expected
from rayclean.schema import NO_ROW, NONE_OF_CLASSES, Array

SAMPLE_ROWS = 100_000
GROUPS = 60
SHOWN_COPIES = 8
FACTS = ("row", "given_label", "label_score", "is_label_issue", "predicted_label", "verified_label")


@dataclass
class Copies:
    """Samples with equal pixels, some with another label.

    Attributes:
        rows: the first of them.
        total: how many there are.
    """

    rows: list[int]
    total: int


@dataclass
class Seen:
    """What the pass has found.

    Attributes:
        sample: columns of every `stride`-th row: float64 with NaN for null, int64 for `row` and `given_label`.
        worst: rows by class.
        kinds: flagged rows by kind, and those of none.
        issues: all rows that are flagged or of a kind.
        verified: rows that people have looked at.
        confused: (M, M + 1) rows by given and predicted label, of `shown` classes; last those predicted to be of none.
        flagged: (M, M + 1) flagged ones of these.
        copies: the first groups of copies with different labels, by their first row.
        num_groups: how many such groups there are.
        expected: what the rows' probabilities say of the flags.
    """

    stride: int
    sample: dict[str, Array]
    worst: Array
    verified: int
    confused: Array
    flagged: Array
    kinds: Counter[str] = field(default_factory=Counter)
    copies: dict[int, Copies] = field(default_factory=dict)
    num_groups: int = 0
    expected: Expected = field(default_factory=Expected)


def scan(table: ds.Dataset, num_rows: int, scores: Sequence[str], shares: Array, shown: Array) -> Seen:
    """Reads the table once.

    Args:
        table: the final one, in order of its rows.
        num_rows: N.
        scores: columns to sample.
        shares: (K,) how many of the worst rows of each class to find.
        shown: (M,) labels whose confusions are counted.
    """
    stride = max(-(-num_rows // SAMPLE_ROWS), 1)
    worst, pieces, places = Worst(shares), [], np.full(len(shares) + 1, NO_ROW)
    places[shown], places[NONE_OF_CLASSES] = np.arange(len(shown)), len(shown)
    shape = (len(shown), len(shown) + 1)
    seen = Seen(stride, {}, worst.rows, 0, np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    columns = [*FACTS, "issue_kind", "duplicate_of", *scores]
    for batch in table.to_batches(columns=columns, batch_readahead=4, fragment_readahead=2):
        facts = {name: _numbers(batch[name]) for name in FACTS}
        worst.add(facts["row"], facts["given_label"], facts["label_score"])
        seen.verified += len(batch) - batch["verified_label"].null_count
        seen.expected.add(facts["label_score"], facts["is_label_issue"] > 0)
        _count_confused(seen, facts, places)
        _count_kinds(seen, batch)
        here = np.flatnonzero(facts["row"] % stride == 0)
        rest = {name: _numbers(batch[name])[here] for name in scores}
        pieces.append({name: values[here] for name, values in facts.items()} | rest)
    names = [*FACTS, *scores]
    seen.sample = {name: np.concatenate([np.empty(0), *(piece[name] for piece in pieces)]) for name in names}
    for name in ("row", "given_label"):
        seen.sample[name] = seen.sample[name].astype(np.int64)
    seen.worst = worst.rows
    return seen


def _numbers(column: pa.Array) -> Array:
    """As int64 where nothing can be missing, else float64 with NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if column.null_count:
        column = column.cast(pa.float64())
    values: Array = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _count_confused(seen: Seen, facts: dict[str, Array], places: Array) -> None:
    """Adds the rows whose given label is shown, and their predicted one too, or none of the classes."""
    given, predicted = places[facts["given_label"]], places[facts["predicted_label"]]
    both = (given >= 0) & (predicted >= 0)
    pairs, issues = (given[both], predicted[both]), facts["is_label_issue"][both] > 0
    np.add.at(seen.confused, pairs, 1)
    np.add.at(seen.flagged, pairs, issues)


def _count_kinds(seen: Seen, batch: pa.RecordBatch) -> None:
    """Adds the kinds, and the copies that carry different labels."""
    kinds = batch["issue_kind"].cast(pa.string())
    for each in pc.value_counts(kinds).to_pylist():
        if each["values"] is not None:
            seen.kinds[each["values"]] += each["counts"]
    found = batch.filter(pc.fill_null(pc.equal(kinds, KIND_NAMES[Kind.DUPLICATE]), False))
    for row, first in zip(found["row"].to_pylist(), found["duplicate_of"].to_pylist(), strict=True):
        if first is None:
            seen.num_groups += 1
            if len(seen.copies) < GROUPS:
                seen.copies[row] = Copies([row], 1)
        elif first in seen.copies:  # the smallest row of a group comes first
            group = seen.copies[first]
            group.total += 1
            if len(group.rows) < SHOWN_COPIES:
                group.rows.append(row)
