"""DataComp's filter file: the uids of the chosen samples, as its resharder reads them.

A uid has 128 bits. It is that of the sample's JSON member (`uid`, 32 hex digits) where there is one, else the MD5 of
`shard/key`. The file is a sorted array of pairs of 64-bit numbers; a uid that several samples have is there once, as
the resharder would repeat the sample.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np

from rayclean.errors import ShardChangedError
from rayclean.export.copying import read_part, samples_of
from rayclean.export.files import READ_AT_ONCE, publish_file
from rayclean.export.rows import Chosen, ShardRowReader
from rayclean.export.work import Made, Work
from rayclean.schema import Array
from rayclean.shards.opening import open_shard
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.units import Job, UnitResult, block_name

UID_TYPE = np.dtype("u8,u8")
_UID = re.compile(r"[0-9a-fA-F]{32}")
BUCKETS = 64
FILTER_FILE = "uids.npy"
JSON = "json"


def make_datacomp(work: Work) -> Made:
    """`datacomp`: the filter file."""
    job = UidsJob(work.chosen.table.store, work.folder, work.chosen)
    work.compute(job)
    data, num_uids = filter_file(job)
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        facts = list(threads.map(lambda unit: read_json(job.store, f"{job.folder}/{unit}.json"), job.units()))
    samples, made_uids = (sum(each[name] for each in facts) for name in ("samples", "made_uids"))
    made = Made(samples, work.chosen.reasons(), [publish_file(work.out, FILTER_FILE, data)])
    made.facts = {"uids": num_uids, "made_uids": made_uids}
    made.notes.append(
        f"`{FILTER_FILE}` has {num_uids:,} uids for DataComp's resharder: `python resharder.py -i SHARDS -o OUT -s "
        f"{FILTER_FILE}`. {samples - made_uids:,} samples have a uid of their own in their JSON; of {made_uids:,} it "
        "is the MD5 of `shard/key`, which the resharder does not know. A uid of several samples is there once."
    )
    return made


@dataclass(frozen=True)
class UidsJob(Job):
    """Reads the uids of the chosen samples of each shard: `uids` (n, 2) uint64, sorted.

    Attributes:
        chosen: which samples.
    """

    stage: ClassVar[str] = "export"
    chosen: Chosen

    def units(self) -> Sequence[str]:
        """One unit per shard."""
        return [f"uids/{block_name(shard)}" for shard in range(self.chosen.catalog.shards.num_rows)]

    def beside(self, unit: str) -> Sequence[str]:
        """Counts."""
        return [f"{unit}.json"]

    def open(self) -> Callable[[str], UnitResult]:
        """Opens the table."""
        reader = ShardRowReader(self.chosen)

        def compute(unit: str) -> UnitResult:
            shard = reader.read(int(unit.rpartition("/")[2]))
            rows = shard.rows.select(["sample", "key"]).filter(shard.exported).to_pylist()
            keys = {row["sample"]: row["key"] for row in rows}
            found: dict[int, str] = {}
            if keys:
                with open_shard(shard.identity.url) as file:
                    found = dict(_json_uids(file, shard.identity.url, keys))
                shard.check_unchanged()
            uids = [found.get(sample) or made_uid(shard.name, key) for sample, key in keys.items()]
            content = {"uids": _sorted(np.array([halves(uid) for uid in uids], np.uint64).reshape(-1, 2))}
            facts = {"samples": len(keys), "made_uids": len(keys) - len(found)}
            return UnitResult(content, {f"{unit}.json": facts}, rows=shard.rows.num_rows, facts=facts)

        return compute


def made_uid(shard: str, key: str) -> str:
    """The uid of a sample that has none: 32 hex digits."""
    return hashlib.md5(f"{shard}/{key}".encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def halves(uid: str) -> tuple[int, int]:
    """A uid as its upper and its lower 64 bits."""
    return int(uid[:16], 16), int(uid[16:], 16)


def _json_uids(file: BinaryIO, url: str, keys: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Positions and uids of the samples whose JSON has one."""
    for position, sample in enumerate(samples_of(file, url)):
        if position not in keys:
            continue
        if sample[0].member.key != keys[position]:
            raise ShardChangedError(f"{url} changed since it was cataloged; run again to catalog the new content")
        for part in sample:
            if part.member.extension == JSON and (uid := _uid_in(read_part(file, url, part))):
                yield position, uid


def _uid_in(content: bytes) -> str | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    uid = value.get("uid") if isinstance(value, dict) else None
    return uid if isinstance(uid, str) and _UID.fullmatch(uid) else None


def _sorted(uids: Array) -> Array:
    return np.asarray(uids[np.lexsort((uids[:, 1], uids[:, 0]))])


def filter_file(job: UidsJob) -> tuple[memoryview, int]:
    """The bytes of the filter file, and how many uids it has. All units must be done.

    Holds 16 bytes per chosen row, and about a 64th of all uids beside: these are sorted range by range. (A run on an
    object store holds what the units wrote as well, 16 bytes per row.)
    """
    parts = [map_arrays(job.store, job.file(unit))["uids"] for unit in job.units()]
    total = sum(len(part) for part in parts)
    begin = len(_header(total))
    buffer = bytearray(begin + total * UID_TYPE.itemsize)
    pairs = np.frombuffer(buffer, np.uint64, offset=begin).reshape(-1, 2)
    edges = np.arange(BUCKETS, dtype=np.uint64) * np.uint64(2**64 // BUCKETS)
    cuts = [np.append(np.searchsorted(part[:, 0], edges), len(part)) for part in parts]
    filled = 0
    for bucket in range(BUCKETS):
        inside = [part[cut[bucket] : cut[bucket + 1]] for part, cut in zip(parts, cuts, strict=True)]
        ordered = _sorted(np.concatenate(inside))
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        pairs[filled : filled + is_first.sum()] = ordered[is_first]
        filled += int(is_first.sum())
    header = _header(filled)  # not longer than that of all
    buffer[begin - len(header) : begin] = header
    return memoryview(buffer)[begin - len(header) : begin + filled * UID_TYPE.itemsize], filled


def _header(num_uids: int) -> bytes:
    """What a `.npy` file of uids begins with."""
    sink = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(UID_TYPE), "fortran_order": False, "shape": (num_uids,)}
    np.lib.format.write_array_header_1_0(sink, facts)
    return sink.getvalue()
