"""`rayclean errors`: failed units of the last start, samples in quarantine, shards that are cut short."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.stage import UNUSED
from rayclean.catalog.table import SHARDS_FILE, SOURCES_FILE, Catalog
from rayclean.config import Config
from rayclean.run.failures import read_failures
from rayclean.run.start import look
from rayclean.storage.contents import open_table, read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

MAX_SHARDS = 1000  # that are looked at one by one, while the catalog is not finished


def find_errors(config: Config, limit: int) -> dict[str, Any]:
    """What `rayclean errors` prints, as plain values.

    Args:
        config: the run.
        limit: samples that are listed of each data set; counts are of all.

    Returns:
        `failed`: one dict per stage; units that are done meanwhile are left out. `data`: one dict per data set with its
        counts by reason, its first samples and its truncated shards; `shards_read` of `shards` say how far these reach;
        `unused_features`: how many are of no sample, where they lie in files beside the shards.
    """
    this = look(config, Store(config.run.dir))
    data = [_bad_samples("data.shards", this.source, limit)]
    if this.validation is not None:
        data.append(_bad_samples("influence.validation", this.validation, limit))
    return {"failed": _still_failed(this.store), "data": data}


def _still_failed(store: Store) -> list[dict[str, Any]]:
    listed: dict[str, list[str]] = {}
    found = []
    for stage, entry in read_failures(store).items():
        units = []
        for unit in entry["units"]:
            folder, _, name = unit["file"].rpartition("/")
            if folder not in listed:
                listed[folder] = store.list(folder)
            if name not in listed[folder]:
                units.append(unit)
        if units:
            done = len(entry["units"]) - len(units)
            found.append({"stage": stage, "at": entry["at"], "count": entry["count"] - done, "units": units})
    return found


def shard_names(catalog: Catalog) -> list[str]:
    """Names of a catalog's shards, in order; known before it is made."""
    sources = read_table(catalog.store, f"{catalog.folder}/{SOURCES_FILE}", ["name"])
    names: list[str] = sources["name"].to_pylist()
    return names


def shards_with_quarantine(catalog: Catalog) -> list[int]:
    """Shards that have samples in quarantine; while the catalog is not finished, all that are read."""
    if catalog.store.exists(f"{catalog.folder}/{SHARDS_FILE}"):
        bad: list[int] = pc.indices_nonzero(pc.greater(catalog.shards["quarantined"], 0)).to_pylist()
        return bad
    # A unit publishes its own file last: what has no rows is being read.
    return [int(name.partition(".")[0]) for name in catalog.store.list(f"{catalog.folder}/rows")]


def _bad_samples(data: str, catalog: Catalog, limit: int) -> dict[str, Any]:
    names, shards = shard_names(catalog), shards_with_quarantine(catalog)
    is_finished = catalog.store.exists(f"{catalog.folder}/{SHARDS_FILE}")
    found: dict[str, Any] = {"data": data, "shards": len(names), "shards_read": len(names)}
    if is_finished:
        cut = pc.not_equal(catalog.shards["truncated"], "")
        lines = catalog.shards.filter(cut).select(["name", "truncated"]).to_pylist()
        found["truncated"] = [{"shard": line["name"], "text": line["truncated"]} for line in lines]
        found["reasons"] = dict(catalog.summary["quarantined"])
        if UNUSED in catalog.summary:
            found[UNUSED] = catalog.summary[UNUSED]
    else:
        shards = shards[:MAX_SHARDS]
        found["shards_read"] = len(shards)
        found["truncated"] = [
            {"shard": names[shard], "text": text} for shard in shards if (text := _truncation(catalog, shard))
        ]
        found["reasons"] = _reasons(catalog, shards)
    found["samples"] = list(islice(_samples(catalog, names, shards), limit))
    return found


def _quarantine(catalog: Catalog, shard: int) -> pa.Table:
    return read_table(catalog.store, f"{catalog.folder}/quarantine/{block_name(shard)}.parquet")


def _samples(catalog: Catalog, names: list[str], shards: list[int]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for line in _quarantine(catalog, shard).to_pylist():
            yield {"shard": names[shard], **line}


def _reasons(catalog: Catalog, shards: list[int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in shards:
        for reason in _quarantine(catalog, shard)["reason"].to_pylist():
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _truncation(catalog: Catalog, shard: int) -> str:
    """How a shard's tar breaks off, empty for a whole one."""
    rows = open_table(catalog.store, f"{catalog.folder}/rows/{block_name(shard)}.parquet")
    text: bytes = rows.schema_arrow.metadata[b"truncated"]
    return text.decode()
