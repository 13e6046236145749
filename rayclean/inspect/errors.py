"""`rayclean errors`: failed units of the last start, samples in quarantine, shards that are cut short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.stage import UNUSED
from rayclean.catalog.table import SHARDS_FILE, SOURCES_FILE, Catalog
from rayclean.config import Config
from rayclean.run.failures import Failures, read_failures
from rayclean.run.start import look
from rayclean.storage.contents import open_table, read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

MAX_SHARDS = 1000  # that are looked at one by one, while the catalog is not finished


@dataclass(frozen=True)
class CutShard:
    """A shard that breaks off, and how."""

    shard: str
    text: str


@dataclass(frozen=True)
class BadSample:
    """A sample in quarantine.

    Attributes:
        sample: its position in the shard.
        text: what is wrong in its case.
    """

    shard: str
    sample: int
    key: str
    reason: str
    text: str


@dataclass(frozen=True)
class BadData:
    """What is wrong with the samples and shards of one data set.

    Attributes:
        data: the field that names it.
        shards: how many it has.
        shards_read: of how many of them all else speaks.
        reasons: samples in quarantine by reason.
        unused_features: how many are of no sample, where they lie in files beside the shards.
        samples: the first of those in quarantine.
    """

    data: str
    shards: int
    shards_read: int
    truncated: tuple[CutShard, ...]
    reasons: dict[str, int]
    unused_features: int | None
    samples: tuple[BadSample, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values; without `unused_features` where there are no such files."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Errors:
    """What `rayclean errors` says: failed units by stage, without those that are done meanwhile; each data set."""

    failed: dict[str, Failures]
    data: tuple[BadData, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        failed = [{"stage": stage, **asdict(entry)} for stage, entry in self.failed.items()]
        return {"failed": failed, "data": [each.to_json() for each in self.data]}


def find_errors(config: Config, limit: int) -> Errors:
    """What failed in the last start, and what is wrong with the data.

    Args:
        config: the run.
        limit: samples that are listed of each data set; counts are of all.
    """
    this = look(config, Store(config.run.dir))
    data = [_bad_samples("data.shards", this.source, limit)]
    if this.validation is not None:
        data.append(_bad_samples("influence.validation", this.validation, limit))
    return Errors(_still_failed(this.store), tuple(data))


def _still_failed(store: Store) -> dict[str, Failures]:
    listed, found = cache(store.list), {}
    for stage, entry in read_failures(store).items():
        places = [unit.file.rpartition("/") for unit in entry.units]
        is_done = [name in listed(folder) for folder, _, name in places]
        if not all(is_done):
            units = tuple(unit for unit, done in zip(entry.units, is_done, strict=True) if not done)
            found[stage] = replace(entry, count=entry.count - sum(is_done), units=units)
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


def _bad_samples(data: str, catalog: Catalog, limit: int) -> BadData:
    names, shards = shard_names(catalog), shards_with_quarantine(catalog)
    if catalog.store.exists(f"{catalog.folder}/{SHARDS_FILE}"):
        cut = catalog.shards.filter(pc.not_equal(catalog.shards["truncated"], ""))
        truncated = tuple(map(CutShard, cut["name"].to_pylist(), cut["truncated"].to_pylist()))
        read, reasons, unused = len(names), dict(catalog.summary["quarantined"]), catalog.summary.get(UNUSED)
    else:
        shards = shards[:MAX_SHARDS]
        texts = {shard: _truncation(catalog, shard) for shard in shards}
        truncated = tuple(CutShard(names[shard], text) for shard, text in texts.items() if text)
        read, reasons, unused = len(shards), _reasons(catalog, shards), None
    samples = tuple(islice(_samples(catalog, names, shards), limit))
    return BadData(data, len(names), read, truncated, reasons, unused, samples)


def _quarantine(catalog: Catalog, shard: int) -> pa.Table:
    return read_table(catalog.store, f"{catalog.folder}/quarantine/{block_name(shard)}.parquet")


def _samples(catalog: Catalog, names: list[str], shards: list[int]) -> Iterator[BadSample]:
    for shard in shards:
        for line in _quarantine(catalog, shard).to_pylist():
            yield BadSample(names[shard], **line)


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
