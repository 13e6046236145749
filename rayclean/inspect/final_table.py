"""The table of a run as a stream: the few rows that pass a filter, and how a value ranks among all rows.

Nothing of the size of the run is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from rayclean.errors import InputError
from rayclean.schema import NONE_NAME, NONE_OF_CLASSES
from rayclean.storage.contents import open_table
from rayclean.storage.published import LABELS, Published
from rayclean.storage.store import Store

Facts = dict[str, Any]


def _scanner(tables: ds.Dataset, columns: Sequence[str], only: pc.Expression | None = None) -> ds.Scanner:
    return tables.scanner(columns=list(columns), filter=only, batch_readahead=4, fragment_readahead=2)


def stream(tables: ds.Dataset, columns: Sequence[str], only: pc.Expression) -> list[Facts]:
    """Columns of the few rows that pass a filter; no more than some batches are held at a time."""
    return [line for batch in _scanner(tables, columns, only).to_batches() for line in batch.to_pylist()]


def open_tables(store: Store, names: Sequence[str]) -> ds.Dataset | None:
    """Parquet files of one schema as one table that is not read yet; None where there is no file.

    Files on a disk are compared with their checksums first. Of those on an object store, which would have to be fetched
    whole for it, each page is when it is read.
    """
    if not names:
        return None
    if store.is_local:
        for name in names:
            open_table(store, name)
        return ds.dataset([store.full(name) for name in names], format="parquet")
    pages = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.dataset(
        [store.full(name) for name in names],
        format=ds.ParquetFileFormat(default_fragment_scan_options=pages),
        filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(store.fs)),
    )


def class_of(label: int | None, names: Sequence[str]) -> Facts | None:
    """A label with its name."""
    if label is None:
        return None
    if label == NONE_OF_CLASSES:
        return {"label": label, "name": NONE_NAME}
    return {"label": label, "name": names[label] if 0 <= label < len(names) else None}


@dataclass(frozen=True)
class FinalTable:
    """`labels/` as a stream.

    Attributes:
        published: its files.
        rows: of its parts.
    """

    published: Published
    rows: ds.Dataset

    @classmethod
    def of(cls, published: Published) -> FinalTable:
        """The rows of a published table, each part on a disk compared with the manifest first; see `open_tables`."""
        for part in published.parts if published.store.is_local else ():
            published.check(part)
        rows = open_tables(published.store, published.parts)
        if rows is None:
            raise InputError(f"{published.store.root}/{LABELS}: the table has no parts; run `rayclean run` again")
        return cls(published, rows)

    @property
    def merge(self) -> str:
        """The folder that it comes from."""
        return self.published.merge

    @property
    def names(self) -> list[str]:
        """Names of the classes, by label."""
        return list(self.published.names)

    def places(self, key: str) -> list[Facts]:
        """Shard and row of the samples with a key."""
        return stream(self.rows, ["shard", "row"], pc.field("key") == key)

    def facts(self, row: int) -> Facts:
        """A row, with what its neighbours are and how each score ranks."""
        (line,) = self._lines([row], self.rows.schema.names)
        near, twin = line.pop("neighbor_rows"), line.pop("duplicate_of")
        labels = ("given_label", "predicted_label")
        others = self._lines({*near, twin} - {None}, ["row", "shard", "key", *labels])
        known = {each["row"]: each | {name: class_of(each[name], self.names) for name in labels} for each in others}
        scores = {name: line.pop(name) for name in list(line) if name.startswith("score_")}
        ranks = self._ranks({"label_score": line["label_score"], **scores})
        for name in ("given_label", "predicted_label", "verified_label"):
            line[name] = class_of(line.get(name), self.names)
        line.pop("neighbor_labels")
        return line | {
            "rank": ranks.pop("label_score"),
            "scores": {name.removeprefix("score_"): {"value": scores[name], **ranks[name]} for name in scores},
            "neighbors": [known[each] for each in near],
            "duplicate_of": known.get(twin),
        }

    def _lines(self, rows: Sequence[int] | set[int], columns: Sequence[str]) -> list[Facts]:
        only = pc.field("row").isin(pa.array(sorted(rows), pa.int64()))
        return stream(self.rows, columns, only)

    def _ranks(self, values: Mapping[str, float | None]) -> dict[str, Facts]:
        """By column: `rank` from 1, the least clean, `of` so many; `percentile` counts half of the equal ones."""
        less, equal, defined = (dict.fromkeys(values, 0) for _ in range(3))
        for batch in _scanner(self.rows, list(values)).to_batches():
            for name, value in values.items():
                column = batch[name]
                defined[name] += len(column) - column.null_count
                if value is not None:
                    at = pa.scalar(value, column.type)
                    less[name] += pc.sum(pc.less(column, at)).as_py() or 0
                    equal[name] += pc.sum(pc.equal(column, at)).as_py() or 0
        return {
            name: {
                "rank": None if value is None else less[name] + 1,
                "of": defined[name],
                "percentile": None if value is None else 100 * (less[name] + equal[name] / 2) / defined[name],
            }
            for name, value in values.items()
        }
