"""The rows of a shard with their fates: what a worker that reads the shard again starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayclean.catalog.table import Catalog
from rayclean.errors import InputError, ShardChangedError
from rayclean.export.choose import COLUMNS, Decision, Lines, Reason, Rule, reasons_of
from rayclean.export.table import LabelTable, RowReader
from rayclean.schema import Array
from rayclean.shards.urls import ShardIdentity, stat_shard
from rayclean.storage.published import UPDATE


@dataclass(frozen=True)
class Chosen:
    """Which rows of a run are exported. Picklable and cheap.

    Attributes:
        catalog: the rows of the run.
        source: the rows as the shards have them; the same but where noise was made or rows were left out on purpose.
        table: what is known of the rows.
        rule: what becomes of each.
        removed: whether the rows that go are exported, and not those that stay.
    """

    catalog: Catalog
    source: Catalog
    table: LabelTable
    rule: Rule
    removed: bool

    def check(self) -> None:
        """Raises InputError where the table has not as many rows as the catalog."""
        if self.table.num_rows != self.catalog.num_rows:
            raise self.table.published.of_other_rows(f"{self.table.num_rows} rows", f"{self.catalog.num_rows}")

    def exported(self, decision: Decision) -> Array:
        """(N,) bool: the rows that are asked for."""
        return ~decision.kept if self.removed else decision.kept

    def reasons(self) -> dict[str, int]:
        """How many rows of the table have each reason; reads all of it."""
        tallies = np.zeros(len(Reason), np.int64)
        for batch in self.table.batches(COLUMNS):
            tallies += self.rule.decide(Lines.of(batch)).tally()
        return reasons_of(tallies)


class ShardRows(NamedTuple):
    """The rows of a shard, N of them.

    Attributes:
        name: of the shard, as the table has it.
        identity: of the shard.
        rows: of the catalog, in order.
        decision: what becomes of them.
        exported: (N,) bool.
        in_shard: (N,) labels as they are in the shard, numbered as the shards' classes are.
        quarantined: samples of the shard that are no rows since they are bad.
        left_out: those that were left out on purpose.
    """

    name: str
    identity: ShardIdentity
    rows: pa.Table
    decision: Decision
    exported: Array
    in_shard: Array
    quarantined: int
    left_out: int

    def check_unchanged(self) -> None:
        """Raises ShardChangedError where the shard is not the one that was cataloged."""
        found, recorded = stat_shard(self.identity.url), self.identity
        if (found.size, found.tag) != (recorded.size, recorded.tag):
            raise ShardChangedError(
                f"{recorded.url} changed since it was cataloged: expected {recorded.size} bytes (tag {recorded.tag}), "
                f"found {found.size} bytes (tag {found.tag}); run again to catalog the new content"
            )


class ShardRowReader:
    """Reads the rows of one shard after the other.

    Args:
        chosen: of which run.
    """

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self._lines = RowReader(chosen.table, [*COLUMNS, "shard", "key"])

    def read(self, shard: int) -> ShardRows:
        """The rows of a shard.

        Raises:
            InputError: the table is of other rows than the catalog.
        """
        chosen, catalog = self.chosen, self.chosen.catalog
        entry = catalog.shards.slice(shard, 1).to_pylist()[0]
        rows = catalog.rows_of_shard(shard)
        first, count = entry["first_row"], rows.num_rows
        decision = Decision(np.zeros(0, bool), np.zeros(0, np.int32), np.zeros(0, np.int8))
        in_shard = np.zeros(0, np.int64)
        if count:
            lines = self._lines.read(first, first + count)
            _check_same(chosen.table, lines, entry["name"], rows)
            decision = chosen.rule.decide(Lines.of(lines))
            in_shard = self._in_shard(shard, rows)
        return ShardRows(
            entry["name"],
            ShardIdentity(entry["url"], entry["size"], entry["tag"]),
            rows,
            decision,
            chosen.exported(decision),
            in_shard,
            entry["quarantined"],
            entry["samples"] - count - entry["quarantined"],
        )

    def _in_shard(self, shard: int, rows: pa.Table) -> Array:
        if self.chosen.source.folder == self.chosen.catalog.folder:
            return np.asarray(rows["label"].to_numpy())
        source = self.chosen.source.rows_of_shard(shard)
        at = np.searchsorted(source["sample"].to_numpy(), rows["sample"].to_numpy())
        return np.asarray(source["label"].to_numpy()[at])


def source_labels(names: Sequence[str], source_names: Sequence[str]) -> Array:
    """For each class of the run its number among the shards' classes, (K,) int64.

    Raises:
        InputError: a class of the table is none of the shards'.
    """
    number = {name: label for label, name in enumerate(source_names)}
    if unknown := [name for name in names if name not in number]:
        raise InputError(
            f"data.classes has no class {unknown[0]!r}, which the table has: it was made with other classes; {UPDATE}"
        )
    return np.array([number[name] for name in names], np.int64)


def _check_same(table: LabelTable, lines: pa.Table, shard: str, rows: pa.Table) -> None:
    shards = lines["shard"].cast(pa.string()).unique().to_pylist()
    if shards != [shard] or not lines["key"].combine_chunks().equals(rows["key"].combine_chunks()):
        raise table.published.of_other_rows(f"rows of {', '.join(shards)}", f"those of {shard}, with its keys")
