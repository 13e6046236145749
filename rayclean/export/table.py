"""The published table as an export reads it: part by part in the order of the rows, or some rows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.schema import Array
from rayclean.storage.published import Published
from rayclean.storage.store import Store

BATCH_ROWS = 2**17


@dataclass(frozen=True)
class LabelTable:
    """A published table by its rows. Picklable and cheap; of a part only the columns that are asked for are read.

    Attributes:
        published: its files.
    """

    published: Published

    @classmethod
    def open(cls, store: Store) -> LabelTable:
        """The table of a run.

        Raises:
            InputError: there is none.
            DamagedFile: a file of it is missing.
        """
        return cls(Published.open(store))

    def __getstate__(self) -> dict[str, object]:
        return {"published": self.published}

    @property
    def store(self) -> Store:
        """The run's files."""
        return self.published.store

    @property
    def merge(self) -> str:
        """The folder that the table comes from."""
        return self.published.merge

    @property
    def digest(self) -> str:
        """Digest of all bytes of its parts."""
        return self.published.digest

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Its files, in the order of the rows; all but the last have equally many."""
        return self.published.parts

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns, with their meanings."""
        return self._file(0).schema_arrow

    @property
    def names(self) -> list[str]:
        """Names of the classes, by label."""
        return list(self.published.names)

    @cached_property
    def part_rows(self) -> int:
        """Rows of every part but the last."""
        return int(self._file(0).metadata.num_rows)

    @cached_property
    def num_rows(self) -> int:
        """N, the number of rows."""
        last = len(self.parts) - 1
        return self.part_rows * last + int(self._file(last).metadata.num_rows)

    def _file(self, part: int) -> pq.ParquetFile:
        return self.published.open_part(self.parts[part])

    def batches(self, columns: Sequence[str], part: int | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of all rows, or of those of one part, in order, at most `BATCH_ROWS` rows at a time."""
        for each in range(len(self.parts)) if part is None else [part]:
            yield from self._file(each).iter_batches(BATCH_ROWS, columns=list(columns))

    def part(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Columns of all rows of a part."""
        return self.published.read(self.parts[part], columns)

    def take(self, rows: Array, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows, in ascending order of the rows.

        Args:
            rows: (R,) int64, distinct; R at least 1.
            columns: names.
        """
        found, ordered = [], np.sort(rows)
        for part in np.unique(ordered // self.part_rows):
            here = ordered[ordered // self.part_rows == part] - part * self.part_rows
            found.append(self.part(int(part), columns).take(pa.array(here)))
        return pa.concat_tables(found)


class RowReader:
    """Reads ranges of rows one after the other; the parts that the last range lies in stay in memory.

    Args:
        table: whose.
        columns: that are read.
    """

    def __init__(self, table: LabelTable, columns: Sequence[str]) -> None:
        self.table, self.columns = table, columns
        self._held: dict[int, pa.Table] = {}

    def read(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop), at least one."""
        first, last = start // self.table.part_rows, (stop - 1) // self.table.part_rows
        held, self._held = self._held, {}
        for part in range(first, last + 1):
            self._held[part] = held[part] if part in held else self.table.part(part, self.columns)
        return pa.concat_tables(self._held.values()).slice(start - first * self.table.part_rows, stop - start)
