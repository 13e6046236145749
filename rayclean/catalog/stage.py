"""The catalog's units: one shard each, then one that joins them into columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.looks import Embedder, FeatureLook, FeatureSource
from rayclean.catalog.scan import ScanSettings, ShardScan, scan_shard
from rayclean.catalog.table import SOURCES_FILE, STRAYS, Catalog
from rayclean.config import DataSection
from rayclean.errors import ShardChangedError
from rayclean.shards.ranges import check_ranges
from rayclean.shards.urls import SHARDS, ShardIdentity, expand_shards, identify_shards, short_names, stat_shard
from rayclean.storage.contents import read_table
from rayclean.storage.draws import draw_id
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_name

VERSION = 1
FEATURES = "features"
ONE_BASED = "labels_past_last"  # of a summary: labels one past the last class, where the first one is empty
UNUSED = "unused_features"  # of a summary: features in files beside the shards that are of no sample


def find_sources(data: DataSection, field: str = SHARDS) -> pa.Table:
    """The shards of a config: url, name (below the longest common folder), size, tag.

    `field`: of the config, for errors.

    Raises:
        InputError: a pattern matches nothing, or a shard cannot be reached or not read in parts.
    """
    urls = expand_shards(data.shards, field)
    identities = identify_shards(urls)
    check_ranges(urls)
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


def catalog_mark(
    data: DataSection, classes: ClassList, sources: pa.Table, verified: str | None = None, features: str | None = None
) -> str:
    """What the catalog is read from: the shards' identity and how a sample is read.

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
    if data.label_offset:
        fields["label_offset"] = data.label_offset
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
        """Files of features of each shard."""
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
    if scan.strays:
        counts[STRAYS] = json.dumps(scan.strays, sort_keys=True)
    return table.replace_schema_metadata(counts if of_pixels else counts | {"digests": FEATURES})


def scan_settings(data: DataSection, classes: ClassList, verified: str | None = None) -> ScanSettings:
    """How a sample is read; `verified`: where labels that people have verified are, if not where the given ones are."""
    truth, clip, known = (LabelField.parse(each) if each else None for each in (data.truth, data.group, verified))
    label = LabelField.parse(data.label)
    return ScanSettings(data.image_extensions, label, truth, classes, data.max_pixels, clip, data.max_scans, known)


def open_catalog(store: Store, mark: str) -> Catalog:
    """The catalog of a mark, which may be yet to be made."""
    return Catalog(store, f"catalog-{mark}", mark)
