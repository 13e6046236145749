"""What is offered for review: the rows of the final table that are most in doubt, and what is known of them.

The table is streamed: one pass chooses the rows, a second one reads all of their columns. Some thousands are held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rayclean.decisions.entries import Entry, Sample
from rayclean.errors import InputError
from rayclean.schema import NONE_OF_CLASSES, Array

HELD = 5000
CERTAIN = 0.5  # the label score that says nothing either way
Facts = dict[str, Any]


class Doubts(NamedTuple):
    """The rows that come first.

    Attributes:
        rows: (H,) int64; flagged ones with the smallest label score first, then the others, the nearest to .5 first;
            of equals the smaller row.
        num_flagged: flagged rows in the whole table, but for those that were to be skipped.
    """

    rows: Array
    num_flagged: int


def most_doubtful(tables: ds.Dataset, held: int, skip: Collection[int] = (), skip_verified: bool = False) -> Doubts:
    """Chooses rows of a final table.

    Args:
        tables: the table.
        held: how many, at most.
        skip: rows that are not offered.
        skip_verified: nor are those that have a verified label.
    """
    skipped = np.array(sorted(skip), np.int64)
    only = pc.field("verified_label").is_null() if skip_verified else None
    calm, doubt, rows = np.empty(0, bool), np.empty(0), np.empty(0, np.int64)
    num_flagged = 0
    for batch in _batches(tables, ["row", "label_score", "is_label_issue"], only):
        new = ~np.isin(batch["row"].to_numpy(), skipped)
        score = batch["label_score"].to_numpy()[new].astype(np.float64)
        flagged = batch["is_label_issue"].to_numpy(zero_copy_only=False)[new]
        num_flagged += int(flagged.sum())
        calm = np.concatenate([calm, ~flagged])
        doubt = np.concatenate([doubt, np.where(flagged, score, np.abs(score - CERTAIN))])
        rows = np.concatenate([rows, batch["row"].to_numpy()[new]])
        first = np.lexsort((rows, doubt, calm))[:held]
        calm, doubt, rows = calm[first], doubt[first], rows[first]
    return Doubts(rows, num_flagged)


def _batches(tables: ds.Dataset, columns: Sequence[str], only: pc.Expression | None = None) -> Iterator[pa.RecordBatch]:
    scanner = tables.scanner(columns=list(columns), filter=only, batch_readahead=4, fragment_readahead=2)
    yield from scanner.to_batches()


class Queue:
    """The rows of one final table, the most doubtful first. Not for threads.

    Attributes:
        merge: the folder that the table comes from.
        names: of the classes.
        chosen: the samples that are offered, in this order, instead of the most doubtful; None without.
        has_pictures: whether samples have images; near ones are else told by their keys.
        rows: that are offered, in order; also those that have been decided since.
        row_of: of each sample whose row is known.
        num_flagged: flagged rows of the table, decided or not.
        flagged: those of them that are known by row.
    """

    def __init__(
        self,
        merge: str,
        names: Sequence[str],
        tables: ds.Dataset,
        skip_verified: bool = False,
        held: int = HELD,
        chosen: Sequence[Sample] | None = None,
        has_pictures: bool = True,
    ) -> None:
        self.has_pictures = has_pictures
        self.merge, self.names, self.held, self.chosen = merge, tuple(names), held, chosen
        self._tables, self._skip_verified = tables, skip_verified
        self._labels = {name: label for label, name in enumerate(self.names)}
        self._lines: dict[int, Facts] = {}
        self.rows: list[int] = []
        self.row_of: dict[Sample, int] = {}
        self.num_flagged = 0
        self.flagged: set[int] = set()

    def place(self, entries: Iterable[Entry]) -> None:
        """Finds the rows of decisions: by the rows that they name, and where another sample is there by their keys."""
        wanted = {entry.sample: entry.row for entry in entries if entry.sample not in self.row_of}
        self._place(wanted, pc.field("row").isin(pa.array(sorted(set(wanted.values())), pa.int64())))
        self._find(wanted)

    def _find(self, samples: Iterable[Sample]) -> None:
        """Finds rows by their keys."""
        missing = {sample for sample in samples if sample not in self.row_of}
        self._place(missing, pc.field("key").isin(pa.array(sorted({key for _, key in missing}), pa.string())))

    def _place(self, wanted: Collection[Sample], only: pc.Expression) -> None:
        for batch in _batches(self._tables, ["row", "shard", "key", "is_label_issue"], only) if wanted else ():
            for line in batch.to_pylist():
                if (line["shard"], line["key"]) in wanted:
                    self._note(line)

    def _note(self, line: Facts) -> None:
        self.row_of[line["shard"], line["key"]] = line["row"]
        if line["is_label_issue"]:
            self.flagged.add(line["row"])

    def fill(self, decided: Iterable[Sample]) -> None:
        """Takes in the next rows, but for those of decided samples, which `place` has found as far as they are here."""
        if self.chosen is not None:
            self._find(self.chosen)
            self.rows = [self.row_of[sample] for sample in self.chosen if sample in self.row_of]
            self._read(self.rows)
            return
        rows = {self.row_of[sample] for sample in decided if sample in self.row_of}
        found = most_doubtful(self._tables, self.held, rows, self._skip_verified)
        self._read(found.rows.tolist())
        twins = (self._lines[row]["duplicate_of"] for row in found.rows.tolist())
        self._read(row for row in twins if row is not None)
        self.rows = list(dict.fromkeys([*self.rows, *found.rows.tolist()]))
        self.num_flagged = found.num_flagged + len(rows & self.flagged)

    def line(self, row: int) -> Facts:
        """All columns of a row.

        Raises:
            InputError: the table has no such row.
        """
        if 0 <= row < 2**63:  # what the column holds
            self._read([row])
        if row not in self._lines:
            raise InputError(f"the table has no row {row}")
        return self._lines[row]

    def told(self, rows: Sequence[int]) -> list[Facts]:
        """Rows for people, who know them by their pictures; without any, by their keys."""
        if self.has_pictures:
            return [{"row": row} for row in rows]
        self._read(rows)
        return [{"row": row, "key": self.line(row)["key"]} for row in rows]

    def sample(self, row: int) -> Sample:
        """What a row is."""
        line = self.line(row)
        return line["shard"], line["key"]

    def _read(self, rows: Iterable[int]) -> None:
        missing = sorted({row for row in rows if row not in self._lines})
        only = pc.field("row").isin(pa.array(missing, pa.int64()))
        for batch in _batches(self._tables, self._tables.schema.names, only) if missing else ():
            for line in batch.to_pylist():
                self._lines[line["row"]] = line
                self._note(line)

    def class_of(self, label: int | None) -> Facts | None:
        """A label with its name; None where there is none, or it is none of the classes."""
        if label is None or label == NONE_OF_CLASSES:
            return None
        return {"label": label, "name": self.names[label] if 0 <= label < len(self.names) else str(label)}

    def class_named(self, name: str | None) -> Facts | None:
        """The same of a class that a decision names; it may be none of the table's any more."""
        return None if name is None else {"label": self._labels.get(name), "name": name}

    def label_of(self, name: str | None) -> int | None:
        """The label of a class."""
        return None if name is None else self._labels.get(name)
