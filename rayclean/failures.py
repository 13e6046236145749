"""What went wrong in a run: failed units of the last start, samples in quarantine, shards that are cut short."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.stage import SOURCES_FILE
from rayclean.catalog.table import SHARDS_FILE, Catalog
from rayclean.config import Config
from rayclean.errors import DamagedFile, RaycleanError
from rayclean.start import look
from rayclean.storage.contents import encode, open_table, read_json, read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

FAILED_FILE = "record/failed.json"
MAX_UNITS = 1000  # of a stage that are written down: a full disk fails all of a large stage, each for one reason
MAX_TEXT = 2000
MAX_SHARDS = 1000  # that are looked at one by one, while the catalog is not finished
log = logging.getLogger(__name__)


def note_failures(store: Store, stage: str, failed: Mapping[str, str]) -> None:
    """Makes these the failures of a stage in the last start; none of them: the stage's entry goes.

    What failed is raised anyway, so a disk that is too full even for this is no further error.

    Args:
        store: the run's files.
        stage: its name.
        failed: file of a unit -> error.
    """
    before = read_failures(store)
    after = {name: entry for name, entry in before.items() if name != stage}
    if failed:
        units = [{"file": file, "error": error[:MAX_TEXT]} for file, error in islice(failed.items(), MAX_UNITS)]
        after[stage] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "count": len(failed), "units": units}
    if after == before:
        return
    try:
        store.publish(FAILED_FILE, encode(FAILED_FILE, after, "{}"))
    except OSError as e:
        log.warning("%s: could not be written: %s", FAILED_FILE, e)


@contextmanager
def noted_failures(store: Store, stage: str, what: str) -> Iterator[None]:
    """Notes an error that ends a stage as a whole, then lets it pass.

    Args:
        store: the run's files.
        stage: its name.
        what: could not be done, in the place of a unit's file.
    """
    try:
        yield
    except RaycleanError as e:
        note_failures(store, stage, {what: str(e)})
        raise


def read_failures(store: Store) -> dict[str, Any]:
    """By stage: when its failures were noted, how many there were, and the first MAX_UNITS of them."""
    try:
        found: dict[str, Any] = read_json(store, FAILED_FILE) if store.exists(FAILED_FILE) else {}
    except DamagedFile as e:  # a record stops nobody
        log.warning("%s", e)
        return {}
    return found


def find_errors(config: Config, limit: int) -> dict[str, Any]:
    """What `rayclean errors` prints, as plain values.

    Args:
        config: the run.
        limit: samples that are listed of each data set; counts are of all.

    Returns:
        `failed`: a dict a stage; units that are done meanwhile are left out. `data`: a dict a data set with its counts
        by reason, its first samples and its truncated shards; `shards_read` of `shards` say how far these reach.
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
