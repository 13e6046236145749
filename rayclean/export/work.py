"""What a kind of export starts from, and what it says it has made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rayclean.catalog.labels import ClassList
from rayclean.config import DataSection
from rayclean.export.croissant import Records
from rayclean.export.files import FileFacts
from rayclean.export.options import ExportOptions
from rayclean.export.rows import Chosen
from rayclean.storage.store import Store
from rayclean.storage.units import Job


@dataclass(frozen=True)
class Work:
    """What a kind starts from.

    Attributes:
        chosen: which rows, with which labels.
        options: what was asked for.
        data: how the shards are read.
        source: the shards' classes.
        out: where the files go.
        folder: of unit marks, in the run.
        compute: does a job's missing units, in parallel.
        beliefs: the bytes of cleanlab's `pred_probs`; raises OSError or RaycleanError where the run has none.
    """

    chosen: Chosen
    options: ExportOptions
    data: DataSection
    source: ClassList
    out: Store
    folder: str
    compute: Callable[[Job], None]
    beliefs: Callable[[], bytes]

    @property
    def names(self) -> list[str]:
        """Of the run's classes, by label."""
        return self.chosen.table.names


@dataclass
class Made:
    """What a kind has written.

    Attributes:
        exported: rows.
        reasons: of all rows of the table, how many have each.
        files: one by one, without pictures.
        facts: further numbers, for the summary.
        notes: for people, Markdown.
        records: what Croissant says of the contents.
        columns: of lists.
        data_files: pattern of what the Hub shows.
    """

    exported: int
    reasons: dict[str, int]
    files: list[FileFacts]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    columns: pa.Schema | None = None
    data_files: str | None = None
