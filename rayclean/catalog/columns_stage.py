"""The catalog's last unit: the shards' rows joined into columns by row, with what is the same among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.content import ContentDigest
from rayclean.catalog.groups import find_groups
from rayclean.catalog.labels import num_past_last
from rayclean.catalog.matching import count_unused
from rayclean.catalog.stage import FEATURES, ONE_BASED, UNUSED, features_mark
from rayclean.catalog.table import COLUMNS_FILE, CONTENT, SHARDS_FILE, SOURCES_FILE, STRAYS, SUMMARY_FILE
from rayclean.schema import NO_ROW, Array
from rayclean.storage.contents import read_table
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_name


@dataclass(frozen=True)
class ColumnsJob(Job):
    """Joins the shards' rows: numbers them, orders them by label, finds equal pixels. One unit.

    Attributes:
        classes: names by label, K of them.
        is_scanned: whether these are all rows of the run's shards, so that features of no row are of no sample.
    """

    stage: ClassVar[str] = "catalog"
    classes: tuple[str, ...]
    is_scanned: bool = False

    def units(self) -> Sequence[str]:
        return [COLUMNS_FILE.removesuffix(self.suffix)]

    def beside(self, unit: str) -> Sequence[str]:
        """The shards, and the counts."""
        return [SHARDS_FILE, SUMMARY_FILE]

    def open(self) -> Callable[[str], UnitResult]:
        return lambda _: _join(self.store, self.folder, self.classes, self.is_scanned)


_ROW_COLUMNS = ["label", "offset", "size", "digest", "draw_id"]


def _join(store: Store, folder: str, classes: Sequence[str], is_scanned: bool) -> UnitResult:
    """Columns by row, the shards' table and the summary.

    Holds about 60 bytes per row; the tables of the shards pass one by one.
    """
    sources = read_table(store, f"{folder}/{SOURCES_FILE}")
    parts: dict[str, list[Array]] = {name: [] for name in [*_ROW_COLUMNS, "shard"]}
    counts: list[dict[str, Any]] = []
    reasons: dict[str, int] = {}
    left_out: dict[str, int] = {}
    strays: Counter[str] = Counter()
    past_last = 0
    of_features = False
    content = ContentDigest(classes, features_mark(sources))
    for shard, name in enumerate(sources["name"].to_pylist()):
        table = read_table(store, f"{folder}/rows/{block_name(shard)}.parquet")
        quarantine = f"{folder}/quarantine/{block_name(shard)}.parquet"
        quarantined = _add_reasons(store, quarantine, reasons)
        past_last += num_past_last(read_table(store, quarantine, ["text"])["text"].to_pylist())
        if store.exists(f"{folder}/left_out/{block_name(shard)}.parquet"):
            _add_reasons(store, f"{folder}/left_out/{block_name(shard)}.parquet", left_out)
        metadata = table.schema.metadata
        counts.append(
            {
                "samples": int(metadata[b"samples"]),
                "rows": table.num_rows,
                "quarantined": quarantined,
                "truncated": metadata[b"truncated"].decode(),
            }
        )
        strays.update(json.loads(metadata.get(STRAYS.encode(), b"{}")))
        content.add(name, table)
        for column in ("label", "offset", "size", "draw_id", "clip_id", "feature"):
            if column in table.column_names:
                parts.setdefault(column, []).append(table[column].to_numpy())
        of_features = of_features or metadata.get(b"digests") == FEATURES.encode()
        digests = b"".join(table["digest"].to_pylist())
        parts["digest"].append(np.frombuffer(digests, "<u8").reshape(-1, 2))
        parts["shard"].append(np.full(table.num_rows, shard, np.int32))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    columns["by_label"] = np.argsort(columns["label"], kind="stable")
    columns["class_counts"] = np.bincount(columns["label"], minlength=len(classes)).astype(np.int64)
    columns["duplicate_of"] = find_duplicates(columns["digest"])
    if "feature" in columns:
        columns["group"] = find_groups(columns["digest"], columns.get("clip_id"))
    if "clip_id" in columns:
        columns |= find_clips(columns["clip_id"], columns["label"])
    shards = _shard_table(sources, counts)
    summary = {
        "rows": len(columns["label"]),
        "samples": sum(count["samples"] for count in counts),
        "quarantined": reasons,
        "left_out": left_out,
        "shards": len(counts),
        "truncated_shards": sum(bool(count["truncated"]) for count in counts),
        "empty_shards": sum(count["samples"] == 0 for count in counts),
        "duplicates": int((columns["duplicate_of"] != NO_ROW).sum()),
    }
    if "clip" in columns:
        summary["clips"] = len(columns["clip_starts"]) - 1
    if past_last and not columns["class_counts"][0]:
        summary[ONE_BASED] = past_last
    if of_features:
        summary["digests"] = FEATURES
    if is_scanned and FEATURES in sources.column_names:
        files, names = (sources[name].to_pylist() for name in (FEATURES, "name"))
        if (unused := count_unused(store, folder, files, names)) is not None:
            summary[UNUSED] = unused
    summary |= {CONTENT: content.finish(summary), STRAYS: dict(strays)}
    return UnitResult(columns, {SHARDS_FILE: shards, SUMMARY_FILE: summary}, rows=summary["rows"])


def _add_reasons(store: Store, file: str, reasons: dict[str, int]) -> int:
    """Adds a table's reasons to the counts; returns its rows."""
    table = read_table(store, file, ["reason"])
    for entry in pc.value_counts(table["reason"]).to_pylist():
        reasons[entry["values"]] = reasons.get(entry["values"], 0) + entry["counts"]
    return int(table.num_rows)


def _shard_table(sources: pa.Table, counts: list[dict[str, Any]]) -> pa.Table:
    rows = np.array([count["rows"] for count in counts], np.int64)
    table = sources
    for name, kind in (("samples", pa.int64()), ("rows", pa.int64()), ("quarantined", pa.int64())):
        table = table.append_column(name, pa.array([count[name] for count in counts], kind))
    table = table.append_column("truncated", pa.array([count["truncated"] for count in counts], pa.string()))
    return table.append_column("first_row", pa.array(np.cumsum(rows) - rows))


def find_duplicates(digest: Array) -> Array:
    """For each row the smallest row with an equal digest, `NO_ROW` where that is the row itself.

    Args:
        digest: (N, 2) uint64.

    Returns:
        (N,) int64.
    """
    order = np.lexsort((digest[:, 1], digest[:, 0]))  # stable: rows ascend within equal digests
    ordered = digest[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    result = np.empty(len(order), np.int64)
    result[order] = np.where(first == order, NO_ROW, first)
    return result


def find_clips(clip_ids: Array, labels: Array) -> dict[str, Array]:
    """Numbers the clips in order of their first rows; frames with another given label are another clip.

    Args:
        clip_ids: (N,) uint64.
        labels: (N,) given labels.

    Returns:
        `clip` (N,) int64 number of each row's; `by_clip` (N,) int64 rows ordered by (clip, row); `clip_starts` (C+1,)
        int64 where each clip begins in it.
    """
    order = np.lexsort((clip_ids, labels))  # stable: rows ascend within a clip
    starts = np.ones(len(order), bool)
    starts[1:] = (clip_ids[order][1:] != clip_ids[order][:-1]) | (labels[order][1:] != labels[order][:-1])
    first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    clip = np.empty(len(order), np.int64)
    clip[order] = np.searchsorted(np.sort(order[starts]), first)
    sizes = np.bincount(clip, minlength=int(starts.sum()))
    return {
        "clip": clip,
        "by_clip": np.argsort(clip, kind="stable"),
        "clip_starts": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    }
