"""Damages tars in every way that somebody thought of, and looks what the catalog and training make of them.

    .venv/bin/python tools/faults/tar_mutations.py                      # 2,400 tars, a few minutes
    .venv/bin/python tools/faults/tar_mutations.py --number 200 --seed 1

For each tar a reader that shares no code with rayclean's (`tools/faults/tar_reader.py`) says which samples lie before
the break. Then the catalog's own units scan and join the shards, and these laws are checked: no unit fails; rows and
quarantine are just these samples, each once; each sample before the break whose image and label are whole is a row; the
sample at the break is in quarantine as `truncated`; the shard is listed as truncated where the tar breaks off; random
access by offset and training's stream give the images of these rows, and nothing else. All of it happens under a limit
on the memory, which a read of what a header claims would break. Exit code 1 where a law does not hold.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from rayclean.catalog.columns_stage import ColumnsJob
from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import CatalogJob, find_sources, open_catalog, scan_settings
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.config import DataSection
from rayclean.shards.decode import decode_image
from rayclean.storage.contents import encode, read_table
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, compute_and_publish
from rayclean.train.feed import FeedSettings, stream_rows
from tools.faults.tar_damage import CLASSES, IMAGES, LABELS, Tar, damaged_tar
from tools.faults.tar_reader import Content, Reading, read_tar

SIZE, MAX_PIXELS = 8, 1e6
SHOWN = {"cls", *DataSection(shards="", classes=1).image_extensions}  # what is a label or an image
BATCH = 200  # shards per catalog
ALLOWED_BYTES = 64 * 2**20  # of memory beyond what there was before the shard was opened
LIMIT_S = 20  # per tar
FOLDER = "catalog-00000000"


@dataclass
class Outcome:
    """What was found.

    Attributes:
        kinds: how many tars had each damage.
        wrong: what does not hold, by tar.
        failed: units that failed.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: int = 0
    broken: int = 0
    samples: int = 0
    rows: int = 0
    quarantined: int = 0
    streamed: int = 0
    slowest_s: float = 0.0


def make_tars(folder: Path, numbers: range, seed: int) -> list[tuple[str, Reading]]:
    """Writes one tar per number, with the first damage of its kind that leaves a header: a file without is no tar."""
    made = []
    for number in numbers:
        for attempt in range(100):
            kind, tar = damaged_tar(number, seed + attempt * 10**6)
            path = folder / f"{number:06d}.tar"
            tar.write(path)
            with path.open("rb") as file:
                reading = read_tar(file)
            if reading.is_tar:
                made.append((kind, reading))
                break
    return made


def scan(folder: Path, outcome: Outcome) -> Catalog | None:
    """The catalog of a folder's shards, by its own units; None where one failed."""
    data = DataSection(shards=f"{folder}/*.tar", classes=CLASSES, max_pixels=MAX_PIXELS)
    sources, classes, store = find_sources(data), ClassList.load(CLASSES), Store(f"{folder}/run")
    store.create(f"{FOLDER}/{SOURCES_FILE}", encode(SOURCES_FILE, sources, "{}"))
    failed = outcome.failed
    job = CatalogJob(store, FOLDER, scan_settings(data, classes), sources.num_rows)
    compute = job.open()
    for unit, source in zip(job.units(), sources["name"].to_pylist(), strict=True):
        started_s = time.perf_counter()
        try:
            with bounded():
                compute_and_publish(job, compute, unit, "{}")
        except Exception as error:  # any is a failed unit, which is what is counted
            outcome.failed += 1
            outcome.wrong.append(f"{source}: the unit failed: {type(error).__name__}: {str(error)[:200]}")
        outcome.slowest_s = max(outcome.slowest_s, time.perf_counter() - started_s)
    if outcome.failed > failed:
        return None
    run_inline([ColumnsJob(store, FOLDER, ClassList.load(CLASSES).names)])
    return open_catalog(store, FOLDER.removeprefix("catalog-"))


@contextmanager
def bounded() -> Iterator[None]:
    """Lets what is inside take so much more memory than there is now, and so long, and no more."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {LIMIT_S} s")

    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + ALLOWED_BYTES, resource.RLIM_INFINITY))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def check(catalog: Catalog, shard: int, path: Path, reading: Reading, outcome: Outcome) -> Iterator[str]:
    """What does not hold of a shard."""
    rows = catalog.rows_of_shard(shard)
    quarantine = read_table(catalog.store, f"{FOLDER}/quarantine/{block_name(shard)}.parquet").to_pylist()
    entry = catalog.shards.slice(shard, 1).to_pylist()[0]
    found = {row["sample"]: row for row in rows.to_pylist()}
    reasons = {bad["sample"]: bad["reason"] for bad in quarantine}
    keys = [key for key, _ in reading.samples]
    outcome.rows += len(found)
    outcome.quarantined += len(reasons)
    outcome.broken += reading.is_broken
    samples = [sample for sample, (_, members) in enumerate(reading.samples) if is_sample(members)]
    if reading.is_broken and keys:
        samples = sorted({*samples, len(keys) - 1})  # what makes the last one a sample may have been cut off
    if sorted([*found, *reasons]) != samples:
        yield f"rows {sorted(found)} and quarantine {sorted(reasons)} are not the samples {samples} before the break"
        return
    outcome.samples += len(samples)
    if any(keys[sample] != line["key"] for sample, line in [*found.items(), *((b["sample"], b) for b in quarantine)]):
        yield "other keys"
    if bool(entry["truncated"]) != reading.is_broken:
        yield f"truncated is {entry['truncated']!r}, but broken is {reading.is_broken}"
    if reading.is_broken and keys and reasons.get(len(keys) - 1) != "truncated":
        yield "the sample at the break is not in quarantine as truncated"
    if any(reason == "truncated" for sample, reason in reasons.items() if sample < len(keys) - reading.is_broken):
        yield "a sample before the break is in quarantine as truncated"
    must, may = expected_rows(reading, path)
    if not must <= set(found) <= may:
        yield f"rows are {sorted(found)}, expected {sorted(must)} and at most {sorted(may)}"
    yield from check_readers(catalog, shard, path, reading, outcome)


def is_sample(members: Sequence[Content]) -> bool:
    """Whether one member at least may be a label or an image; what holds neither is nobody's."""
    return any(member.extension in SHOWN for member in members)


def expected_rows(reading: Reading, path: Path) -> tuple[set[int], set[int]]:
    """Samples that must be rows, since they are as they were made; and those that may: with an image and a label."""
    must, may, known = set(), set(), set[str]()
    with path.open("rb") as file:
        for sample, (key, members) in enumerate(reading.samples[: len(reading.samples) - reading.is_broken]):
            places = {member.extension: member for member in members}
            if not {"png", "cls"} <= places.keys() or any(places[name].is_link for name in SHOWN & places.keys()):
                continue
            may.add(sample)
            contents = []
            for name in ("png", "cls"):
                file.seek(places[name].offset)
                contents.append(file.read(min(places[name].size, 2**20)))
            if contents[0] in IMAGES and contents[1] in LABELS and key not in known:
                must.add(sample)
            known.add(key)  # where this one is none after all, a later sample of its key may be a row
    return must, may


def check_readers(catalog: Catalog, shard: int, path: Path, reading: Reading, outcome: Outcome) -> Iterator[str]:
    """What random access and training's stream give otherwise than the reader without rayclean's code."""
    first = catalog.shards["first_row"][shard].as_py()
    table = catalog.rows_of_shard(shard).to_pylist()
    by_offset = catalog.pixels(SIZE, MAX_PIXELS).read(np.arange(first, first + len(table)))
    settings = FeedSettings(SIZE, MAX_PIXELS, 0, 10, 1, 0)
    with bounded():
        streamed = list(stream_rows(catalog, shard, settings))
    outcome.streamed += len(streamed)
    if [row for row, _ in streamed] != list(range(first, first + len(table))):
        yield f"training streams rows {[row - first for row, _ in streamed]} of {len(table)}"
        return
    with path.open("rb") as file:
        for row, (_, image), other in zip(table, streamed, by_offset, strict=True):
            place = next(m for m in reading.samples[row["sample"]][1] if m.extension == "png")
            file.seek(place.offset)
            expected = decode_image(file.read(place.size), MAX_PIXELS)
            if (place.offset, place.size) != (row["offset"], row["size"]):
                yield f"sample {row['sample']} lies elsewhere"
            elif expected.shape == image.shape and not (
                np.array_equal(expected, image) and np.array_equal(image, other)
            ):
                yield f"sample {row['sample']}: other pixels"


def run(number: int, seed: int) -> Outcome:
    """Damages, scans, streams and checks so many tars."""
    outcome = Outcome()
    for start in range(0, number, BATCH):
        numbers = range(start, min(start + BATCH, number))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            made = make_tars(folder, numbers, seed)
            outcome.kinds.update(kind for kind, _ in made)
            catalog = scan(folder, outcome)
            if catalog is None:
                continue
            for shard, (tar, (kind, reading)) in enumerate(zip(numbers, made, strict=True)):
                for wrong in check(catalog, shard, folder / f"{tar:06d}.tar", reading, outcome):
                    outcome.wrong.append(f"{tar} ({kind}): {wrong}")
    return outcome


def warm_up() -> None:
    """Scans and streams a whole tar, so that all that is loaded lazily is there before the memory is limited."""
    with tempfile.TemporaryDirectory() as place:
        tar = Tar()
        tar.add("k.png", IMAGES[0], 0)
        tar.add("k.cls", LABELS[0], 0)
        tar.data += bytes(1024)
        tar.write(Path(place, "a.tar"))
        catalog = scan(Path(place), Outcome())
        if catalog is not None:
            list(stream_rows(catalog, 0, FeedSettings(SIZE, MAX_PIXELS, 0, 10, 1, 0)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--number", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    warm_up()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    found = run(given.number, given.seed)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(f"{found.kinds.total()} tars with {len(found.kinds)} kinds of damage, {found.broken} of which break off")
    print(f"{found.failed} failed units")
    print(f"{found.samples} samples before the breaks = {found.rows} rows + {found.quarantined} in quarantine")
    print(f"{found.streamed} samples streamed by training")
    print(f"{grown:.0f} MiB of memory at most beyond the start, {ALLOWED_BYTES // 2**20} allowed for a tar")
    print(f"{found.slowest_s:.2f} s for the slowest tar, {time.perf_counter() - started_s:.0f} s in all")
    for wrong in found.wrong[:40]:
        print(wrong)
    is_whole = found.samples == found.rows + found.quarantined and found.rows == found.streamed
    return int(bool(found.wrong) or found.failed > 0 or not is_whole)


if __name__ == "__main__":
    sys.exit(main())
