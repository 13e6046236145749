"""Rows of samples that are in memory: what a scan of one shard would have published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rayclean.catalog.scan import QUARANTINE_SCHEMA, ROWS_SCHEMA, ShardScan
from rayclean.catalog.stage import SOURCES_FILE, open_catalog, row_table
from rayclean.catalog.table import Catalog
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
    catalog = open_catalog(store, name)
    rows = {
        "index_in_shard": np.arange(len(labels)),
        "sample": np.arange(len(labels)),
        "key": keys,
        "member": keys,
        "offset": np.arange(len(labels)),
        "size": np.ones(len(labels), np.int64),
        "label": labels,
        "digest": list(map(pixel_digest, images)),
    }
    columns = [pa.array(rows[field.name], field.type) for field in ROWS_SCHEMA]
    nothing = QUARANTINE_SCHEMA.empty_table()
    scan = ShardScan(pa.table(columns, ROWS_SCHEMA), None, None, nothing, len(labels), truncated="")
    store.images[name] = images
    write(store, f"{catalog.folder}/quarantine/{block_name(0)}.parquet", nothing)
    write(store, f"{catalog.folder}/rows/{block_name(0)}.parquet", row_table(scan))
    source = {"url": [name], "name": [ROOT], "size": pa.array([0], pa.int64()), "tag": [""]}
    write(store, f"{catalog.folder}/{SOURCES_FILE}", pa.table(source))
    return catalog
