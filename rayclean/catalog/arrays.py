"""Rows of samples that are in memory: what a scan of one shard would have published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.catalog.looks import packed
from rayclean.catalog.scan import CLIP_FIELD, FEATURE_FIELD, QUARANTINE_SCHEMA, ROWS_SCHEMA, ShardScan
from rayclean.catalog.stage import FEATURES, open_catalog, row_table
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.schema import Array
from rayclean.storage.contents import write
from rayclean.storage.draws import pixel_digest
from rayclean.storage.memory_store import ROOT, MemoryStore
from rayclean.storage.units import block_name


def publish_images(store: MemoryStore, name: str, images: Array, labels: Array, keys: Sequence[str]) -> Catalog:
    """Makes samples the only shard of a catalog, whose offsets count images.

    Args:
        store: keeps the rows, and the images as they are.
        name: of the catalog.
        images: (N, size, size, 3) uint8.
        labels: (N,) from 0.
        keys: N names.
    """
    store.images[name] = images
    return _publish(store, name, _rows(labels, keys, list(map(pixel_digest, images))), ROWS_SCHEMA)


def publish_features(
    store: MemoryStore,
    name: str,
    features: Array,
    labels: Array,
    keys: Sequence[str],
    groups: Sequence[str] | None = None,
    digests: Sequence[bytes] | None = None,
) -> Catalog:
    """The same of samples that have features and no images.

    Args:
        store: keeps the rows and the features.
        name: of the catalog.
        features: (N, d) float32.
        labels: (N,) from 0.
        keys: N names.
        groups: N names of what belongs together, such as clips; None where rows stand alone.
        digests: N times 16 bytes of what the samples show; by default of their features.
    """
    features = features.astype(np.float32)  # as features of shards are told apart
    digests = digests or list(map(pixel_digest, features))
    places = np.arange(len(labels), dtype=np.int32)
    values, scale = packed(features)
    file = f"{FEATURES}-{name}/{block_name(0)}.safetensors"
    content = {"features": values, "scale": scale, "sample": places, "bad": np.frombuffer(b"[]", np.uint8)}
    write(store, file, content | {"digest": np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)})
    rows, schema = _rows(labels, keys, digests) | {"feature": places}, ROWS_SCHEMA
    if groups is not None:
        rows, schema = rows | {"clip": groups}, schema.append(CLIP_FIELD)
    return _publish(store, name, rows, schema.append(FEATURE_FIELD), {FEATURES: [file]})


def _rows(labels: Array, keys: Sequence[str], digests: Sequence[bytes]) -> dict[str, Any]:
    """Columns of samples, with digests of what they show."""
    places = np.arange(len(labels))
    return {
        "index_in_shard": places,
        "sample": places,
        "key": keys,
        "member": keys,
        "offset": places,
        "size": np.ones(len(labels), np.int64),
        "label": labels,
        "digest": digests,
    }


def _publish(
    store: MemoryStore, name: str, rows: dict[str, Any], schema: pa.Schema, more: dict[str, list[str]] | None = None
) -> Catalog:
    """The one shard of a catalog, and what is said of it besides."""
    catalog, nothing = open_catalog(store, name), QUARANTINE_SCHEMA.empty_table()
    table = pa.table([pa.array(rows[field.name], field.type) for field in schema], schema)
    scan = ShardScan(table, None, None, nothing, table.num_rows, truncated="")
    write(store, f"{catalog.folder}/quarantine/{block_name(0)}.parquet", nothing)
    write(store, f"{catalog.folder}/rows/{block_name(0)}.parquet", row_table(scan, of_pixels=more is None))
    source = {"url": [name], "name": [ROOT], "size": pa.array([0], pa.int64()), "tag": [""], **(more or {})}
    write(store, f"{catalog.folder}/{SOURCES_FILE}", pa.table(source))
    return catalog
