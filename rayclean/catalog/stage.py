"""The catalog's units: a shard each, then one that joins them into columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.groups import find_groups
from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.looks import Embedder, FeatureLook, FeatureSource
from rayclean.catalog.matching import count_unused
from rayclean.catalog.scan import ScanSettings, ShardScan, scan_shard
from rayclean.catalog.table import COLUMNS_FILE, SHARDS_FILE, SUMMARY_FILE, Catalog
from rayclean.config import DataSection
from rayclean.errors import ShardChangedError
from rayclean.schema import NO_ROW, Array
from rayclean.shards.urls import ShardIdentity, expand_shards, identify_shards, short_names, stat_shard
from rayclean.storage.contents import read_table
from rayclean.storage.draws import draw_id
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_name

VERSION = 1
SOURCES_FILE = "sources.parquet"
FEATURES = "features"
UNUSED = "unused_features"  # of a summary: features in files beside the shards that are of no sample


def find_sources(data: DataSection) -> pa.Table:
    """The shards of a config: url, name (below the longest common folder), size, tag.

    Raises:
        InputError: a pattern matches nothing, or a shard cannot be reached.
    """
    urls = expand_shards(data.shards)
    identities = identify_shards(urls)
    return pa.table(
        {
            "url": pa.array(urls, pa.string()),
            "name": pa.array(short_names(urls), pa.string()),
            "size": pa.array([identity.size for identity in identities], pa.int64()),
            "tag": pa.array([identity.tag for identity in identities], pa.string()),
        }
    )


def with_features(sources: pa.Table, features: FeatureSource | None) -> pa.Table:
    """The shards with a column `features`, the file of each one's features, where rows have any."""
    if features is None:
        return sources
    identities = [ShardIdentity(row["url"], row["size"], row["tag"]) for row in sources.to_pylist()]
    names = sources["name"].to_pylist()
    files = [features.file(identity, name) for identity, name in zip(identities, names, strict=True)]
    return sources.append_column("features", pa.array(files, pa.string()))


def features_mark(sources: pa.Table) -> str | None:
    """What the features of a list of shards depend on, by the names of their files; None where rows have none."""
    if FEATURES not in sources.column_names or not sources.num_rows:
        return None
    folder: str = sources[FEATURES][0].as_py().partition("/")[0]
    return folder.removeprefix(f"{FEATURES}-")


def catalog_fingerprint(
    data: DataSection, classes: ClassList, sources: pa.Table, verified: str | None = None, features: str | None = None
) -> str:
    """What the catalog depends on: the shards' identity and how a sample is read.

    `verified` as for `scan_settings`; `features`: what the features of rows depend on, where they have any.
    """
    fields: dict[str, Any] = {
        "image": data.image_extensions,
        "label": data.label,
        "truth": data.truth,
        "classes": list(classes.names),
        "max_pixels": data.max_pixels,
        "sources": sources.select(["name", "size", "tag"]).to_pylist(),
    }
    if data.group is not None:
        fields["group"] = data.group
    if data.max_scans != DataSection.model_fields["max_scans"].default:  # catalogs from before it keep their names
        fields["max_scans"] = data.max_scans
    for name, mark in (("verified", verified), ("features", features)):
        if mark is not None:
            fields[name] = mark
    return fingerprint("catalog", VERSION, fields, [])


@dataclass(frozen=True)
class CatalogJob(Job):
    """Reads every sample of a shard once: rows, truth kept apart, quarantine, and features where rows have any.

    Attributes:
        settings: how a sample is read.
        num_shards: units.
        features: how features are had; None without, and where none can be made.
        has_features: whether rows have any.
    """

    stage: ClassVar[str] = "catalog"
    suffix: ClassVar[str] = ".parquet"
    settings: ScanSettings
    num_shards: int
    features: FeatureSource | None = None
    has_features: bool = False

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "feature_files"}

    def units(self) -> Sequence[str]:
        """A unit a shard."""
        return [f"rows/{block_name(i)}" for i in range(self.num_shards)]

    def beside(self, unit: str) -> Sequence[str]:
        """What is in quarantine; the truth and verified labels where there are any."""
        kinds = {"quarantine": True, "truth": self.settings.truth, "verified": self.settings.verified}
        return [f"{kind}/{unit.removeprefix('rows/')}.parquet" for kind, is_read in kinds.items() if is_read]

    def all_files(self, unit: str) -> list[str]:
        """With the shard's features, which lie apart: catalogs share them."""
        apart = [] if not self.has_features else [self.feature_files[int(unit.removeprefix("rows/"))]]
        return [*apart, *super().all_files(unit)]

    @cached_property
    def feature_files(self) -> list[str]:
        """Of each shard."""
        found: list[str] = read_table(self.store, f"{self.folder}/{SOURCES_FILE}", ["features"])["features"].to_pylist()
        return found

    def open(self) -> Callable[[str], UnitResult]:
        """Loads the list of shards, and what gives features."""
        sources = read_table(self.store, f"{self.folder}/{SOURCES_FILE}").to_pylist()
        embedder = None if self.features is None else self.features.open()

        def compute(unit: str) -> UnitResult:
            name = unit.removeprefix("rows/")
            return self._shard(sources[int(name)], name, embedder)

        return compute

    def _shard(self, source: dict[str, Any], name: str, embedder: Embedder | None) -> UnitResult:
        look, before = None, {} if embedder is None else dict(embedder.facts)
        if embedder is not None and self.features is not None:
            url = source["url"] if self.features.by_content else None
            look = FeatureLook(self.store, source["features"], url, source["name"], embedder)
        scan = scan_shard(source["url"], self.settings, look)
        _check_unchanged(ShardIdentity(source["url"], source["size"], source["tag"]))
        facts = {"quarantined": scan.quarantine.num_rows, "samples": scan.num_samples}
        if embedder is not None:
            facts |= {fact: count - before.get(fact, 0) for fact, count in embedder.facts.items()}
        beside = {f"quarantine/{name}.parquet": scan.quarantine}
        if scan.truth is not None:
            beside[f"truth/{name}.parquet"] = scan.truth
        if scan.verified is not None:
            beside[f"verified/{name}.parquet"] = scan.verified
        of_pixels = self.features is None or self.features.of_pixels
        return UnitResult(row_table(scan, of_pixels), beside, rows=scan.num_samples, facts=facts)


class EmbedShardsJob(CatalogJob):
    """The same where a network looks at the samples."""

    pool: ClassVar[str] = "gpu"


def _check_unchanged(recorded: ShardIdentity) -> None:
    found = stat_shard(recorded.url)
    if found != recorded:
        raise ShardChangedError(
            f"{recorded.url} changed while it was read: expected {recorded.size} bytes (tag {recorded.tag}), "
            f"found {found.size} bytes (tag {found.tag}); run again to catalog the new content"
        )


def row_table(scan: ShardScan, of_pixels: bool = True) -> pa.Table:
    """The rows of a shard with their identity for seeded draws; counts of the shard in the metadata.

    Args:
        scan: of the shard.
        of_pixels: whether digests are of pixels, not of features.
    """
    keys, digests = scan.rows["key"].to_pylist(), scan.rows["digest"].to_pylist()
    draws = [draw_id(key, digest) for key, digest in zip(keys, digests, strict=True)]
    table = scan.rows.append_column("draw_id", pa.array(draws, pa.uint64()))
    if "clip" in table.column_names:
        clips = [draw_id(clip, b"") for clip in table["clip"].to_pylist()]
        table = table.append_column("clip_id", pa.array(clips, pa.uint64()))
    counts = {"samples": str(scan.num_samples), "truncated": scan.truncated}
    return table.replace_schema_metadata(counts if of_pixels else counts | {"digests": FEATURES})


@dataclass(frozen=True)
class ColumnsJob(Job):
    """Joins the shards' rows: numbers them, orders them by label, finds equal pixels. One unit.

    Attributes:
        is_scanned: whether these are all rows of the run's shards, so that features of no row are of no sample.
    """

    stage: ClassVar[str] = "catalog"
    num_classes: int
    is_scanned: bool = False

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [COLUMNS_FILE.removesuffix(self.suffix)]

    def beside(self, unit: str) -> Sequence[str]:
        """The shards, and the counts."""
        return [SHARDS_FILE, SUMMARY_FILE]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""
        return lambda _: _join(self.store, self.folder, self.num_classes, self.is_scanned)


_ROW_COLUMNS = ["label", "offset", "size", "digest", "draw_id"]


def _join(store: Store, folder: str, num_classes: int, is_scanned: bool) -> UnitResult:
    """Columns by row, the shards' table and the summary.

    Holds about 60 bytes a row; the tables of the shards pass one by one.
    """
    sources = read_table(store, f"{folder}/{SOURCES_FILE}")
    parts: dict[str, list[Array]] = {name: [] for name in [*_ROW_COLUMNS, "shard"]}
    counts: list[dict[str, Any]] = []
    reasons: dict[str, int] = {}
    left_out: dict[str, int] = {}
    of_features = False
    for shard in range(sources.num_rows):
        table = read_table(store, f"{folder}/rows/{block_name(shard)}.parquet")
        quarantined = _add_reasons(store, f"{folder}/quarantine/{block_name(shard)}.parquet", reasons)
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
        for name in ("label", "offset", "size", "draw_id", "clip_id", "feature"):
            if name in table.column_names:
                parts.setdefault(name, []).append(table[name].to_numpy())
        of_features = of_features or metadata.get(b"digests") == FEATURES.encode()
        digests = b"".join(table["digest"].to_pylist())
        parts["digest"].append(np.frombuffer(digests, "<u8").reshape(-1, 2))
        parts["shard"].append(np.full(table.num_rows, shard, np.int32))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    columns["by_label"] = np.argsort(columns["label"], kind="stable")
    columns["class_counts"] = np.bincount(columns["label"], minlength=num_classes).astype(np.int64)
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
    if of_features:
        summary["digests"] = FEATURES
    if is_scanned and FEATURES in sources.column_names:
        files, names = (sources[name].to_pylist() for name in (FEATURES, "name"))
        if (unused := count_unused(store, folder, files, names)) is not None:
            summary[UNUSED] = unused
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


def scan_settings(data: DataSection, classes: ClassList, verified: str | None = None) -> ScanSettings:
    """How a sample is read; `verified`: where labels that people have verified are, if not where the given ones are."""
    truth, clip, known = (LabelField.parse(each) if each else None for each in (data.truth, data.group, verified))
    label = LabelField.parse(data.label)
    return ScanSettings(data.image_extensions, label, truth, classes, data.max_pixels, clip, data.max_scans, known)


def open_catalog(store: Store, fingerprint: str) -> Catalog:
    """The finished catalog of a fingerprint."""
    return Catalog(store, f"catalog-{fingerprint}", fingerprint)
