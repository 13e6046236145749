"""The table of clips: a model is fitted to clips as to rows, then applied part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from rayclean.catalog.table import Catalog
from rayclean.decisions.verified import NOTHING_VERIFIED, Verified, read_verified
from rayclean.merge.models import Fitted
from rayclean.merge.table import judgement
from rayclean.schema import Array, clip_schema
from rayclean.scores.clips_table import ClipFiles
from rayclean.storage.contents import read_json
from rayclean.storage.units import Job, UnitResult, block_range, num_blocks


@dataclass(frozen=True)
class ClipsJob(Job):
    """Writes the parts of the table of clips.

    Attributes:
        model: the fitted model's file.
        table_rows: clips of a part.
        has_verified: whether people have verified any.
    """

    stage: ClassVar[str] = "merge"
    suffix: ClassVar[str] = ".parquet"
    files: ClipFiles
    model: str
    threshold: float
    table_rows: int
    has_verified: bool = False

    def units(self) -> Sequence[str]:
        return [f"clips-{i:05d}" for i in range(num_blocks(self.files.num_rows, self.table_rows))]

    def open(self) -> Callable[[str], UnitResult]:
        fitted = Fitted.from_json(read_json(self.store, self.model))
        verified = read_verified(self.store, self.folder) if self.has_verified else NOTHING_VERIFIED

        def compute(unit: str) -> UnitResult:
            block_rows = self.files.block_rows
            start, stop = block_range(int(unit.removeprefix("clips-")), self.table_rows, self.files.num_rows)
            blocks = range(start // block_rows, num_blocks(stop, block_rows))
            table = pa.concat_tables([self._block(each, fitted, verified) for each in blocks])
            return UnitResult(table, rows=stop - start)

        return compute

    def _block(self, block: int, fitted: Fitted, verified: Verified) -> pa.Table:
        catalog = self.files.catalog
        start, stop = block_range(block, self.files.block_rows, self.files.num_rows)
        first = catalog.first_of_clip(start, stop)
        scores = self.files.read(block, fitted.sources)
        given = catalog.label[first]
        posterior = fitted.judge(scores, given).confirmed(given, verified.between(start, stop))
        columns = judgement(posterior, scores.scores, self.threshold) | {
            "clip": _names(catalog, first),
            "first_row": pa.array(first),
            "frames": pa.array(np.diff(catalog.clip_starts[start : stop + 1]), pa.int32()),
            "given_label": pa.array(given, pa.int32()),
        }
        schema = clip_schema(tuple(scores.scores))
        return pa.table([columns[field] for field in schema.names], schema=schema)


def _names(catalog: Catalog, first: Array) -> pa.Array:
    """The clips that rows `first`, ascending, are of, as the shards call them."""
    names = []
    first_rows = catalog.shards["first_row"].to_numpy()
    shards = np.searchsorted(first_rows, first, side="right") - 1  # of shards without rows, the last one starts here
    for shard in np.unique(shards):
        names.append(catalog.rows_of_shard(int(shard))["clip"].take(first[shards == shard] - first_rows[shard]))
    return pa.concat_arrays([chunk for each in names for chunk in each.chunks])
