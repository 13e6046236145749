"""What the converters share: samples of a data set become WebDataset shards, in parallel and resumable.

Each `tools/convert_*.py` knows an official layout and lists its samples. Here they are shuffled, cut and written:

    OUT/classes.txt         one class a line, by label; for `data.classes`
    OUT/SPLIT.json          seed, counts and digest of the conversion that the shards belong to
    OUT/SPLIT-000000.tar    KEY.EXT, the very bytes of the image, and KEY.json: `label`, further labels, `path`
    OUT/SPLIT-missing.txt   listed images that were not there, if any

A shard appears whole or not at all, and the same samples and options give the same bytes for any number of workers,
so the same command goes on after a kill. Each worker holds one shard in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from rayclean.cluster.progress import meter
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.shards.write import Sample, write_shard
from rayclean.storage.draws import draw_id, seeded_hash
from rayclean.storage.store import TEMPORARY, Store

FORMAT = 1
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")  # the default of `data.image`
# Without --shard-size. A shard is what a worker holds and a rerun repeats; 5,000 keeps sets of small images parallel.
SHARD_SAMPLES = 5_000
SHARD_BYTES = 2**28
INTERRUPTED = 130
_SHOWN = 5

Facts = Mapping[str, Any]


class Item(Protocol):
    """A sample that is still to be read, by another process."""

    @property
    def key(self) -> str:
        """Unique in its split."""

    def identity(self) -> str:
        """What the sample's bytes depend on, as far as it is known without reading them; of one line."""

    def sample(self) -> Sample:
        """Reads it."""


@dataclass(frozen=True)
class Split:
    """The samples of SPLIT-000000.tar and so on.

    Attributes:
        name: SPLIT.
        items: in any order.
        num_bytes: of all images, about.
        missing: names of samples that are listed but not there.
        notes: what else its user should know.
    """

    name: str
    items: Sequence[Item]
    num_bytes: int
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """What every converter's command line has.

    Attributes:
        out: local folder or fsspec URL.
        seed: of the order.
        shard_size: most samples a shard; None: at most SHARD_SAMPLES and about SHARD_BYTES.
        workers: processes.
        max_missing: most listed images of a split that may be missing.
    """

    out: str
    seed: int = 0
    shard_size: int | None = None
    workers: int = 1
    max_missing: int = 0


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser of ROOT and of what `read_options` reads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("root", help="the data set, in its official layout")
    parser.add_argument("out", help="where the shards go: a folder or an fsspec URL")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the samples (0)")
    parser.add_argument("--shard-size", type=parse_count, help="most samples a shard (5000, and about 256 MiB)")
    parser.add_argument("--workers", type=parse_count, default=os.cpu_count() or 1, help="processes (one a CPU)")
    parser.add_argument("--max-missing", type=int, default=0, help="listed images of a split that may be missing (0)")
    return parser


def parse_count(text: str) -> int:
    """A command line's number of things, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def read_options(found: argparse.Namespace) -> Options:
    return Options(found.out, found.seed, found.shard_size, found.workers, found.max_missing)


def call(main: Callable[[], None]) -> None:
    """Does what the command line says; an error made on purpose becomes a line and its exit code."""
    name = Path(sys.argv[0]).stem
    try:
        main()
    except RaycleanError as error:
        print(f"{name}: {_printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _printable(text: str) -> str:
    """File names may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def convert(splits: Sequence[Split], classes: Sequence[str], options: Options) -> None:
    """Writes the shards that are not there yet; none before all splits are known to be fine.

    Args:
        splits: of different names.
        classes: names by label.
        options: see `Options`.

    Raises:
        InputError: more missing images than allowed, a key twice, a class name that is no line of text.
        ConfigError: the output cannot be written, or holds shards of another conversion.
        RaycleanError: a shard could not be written; the same command goes on.
    """
    for split in splits:
        _check(split, options.max_missing)
    text = _class_lines(classes)
    plans = [_make_plan(split, options, len(classes)) for split in splits]
    try:
        store = Store(options.out)
        there = set(store.list(""))
        for plan in plans:
            _check_same(plan, store, there)
        _publish_classes(store, text)
        for plan in plans:
            _write_split(plan, store, there, options.workers)
    except OSError as error:
        raise ConfigError(f"{options.out}: cannot be written: {error}; check the path and the access rights") from error


def _check(split: Split, max_missing: int) -> None:
    count, total = len(split.missing), len(split.items) + len(split.missing)
    if not split.items:
        first = f", the first is {split.missing[0]}" if split.missing else ""
        raise InputError(f"{split.name}: found none of {total:,} images{first}; unpack them, or check the folder")
    if count > max_missing:
        names = ", ".join(split.missing[:_SHOWN]) + (f" and {count - _SHOWN:,} more" if count > _SHOWN else "")
        raise InputError(
            f"{split.name}: found {total - count:,} of {total:,} images, not {names}; fetch or unpack them, or go on "
            f"without them with --max-missing {count}"
        )
    keys = set[str]()
    for item in split.items:
        if item.key in keys:
            raise InputError(f"{split.name}: key {item.key!r} is there twice; samples need different names")
        keys.add(item.key)


def _class_lines(classes: Sequence[str]) -> bytes:
    """The file of class names, which must give the same names when a run reads it."""
    for name in classes:
        if name.strip().splitlines() != [name] or name != _printable(name):
            raise InputError(f"class {name!r}: expected a line of text without outer blanks; rename it")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise InputError(f"class {twice!r} is there twice, expected different names; rename one")
    return "".join(f"{name}\n" for name in classes).encode()


def _publish_classes(store: Store, text: bytes) -> None:
    if not store.exists("classes.txt"):
        store.publish("classes.txt", text)
    elif (there := store.read("classes.txt")) != text:
        found, expected = (each.decode("utf-8", "replace").splitlines() for each in (there, text))
        raise ConfigError(
            f"{store.root}/classes.txt: found {len(found)} classes ({', '.join(found[:3])}, ...), expected "
            f"{len(expected)} ({', '.join(expected[:3])}, ...); write other classes to another folder"
        )


@dataclass(frozen=True)
class _Plan:
    """Which samples are in which shard, and what SPLIT.json says of it."""

    split: Split
    parts: list[list[Item]]
    facts: dict[str, Any]


def _make_plan(split: Split, options: Options, num_classes: int) -> _Plan:
    # By a hash of the key, so that neither the order of a list nor NumPy's release matters.
    ids = np.fromiter((draw_id(item.key, b"") for item in split.items), np.uint64, len(split.items))
    order = np.argsort(seeded_hash(options.seed, "shards", ids), kind="stable")
    edges = cut(len(order), split.num_bytes, options.shard_size)
    parts = [[split.items[i] for i in order[first:last]] for first, last in itertools.pairwise(edges)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\n".encode())
        for item in part:
            digest.update(f"{item.key}\n{item.identity()}\n".encode("utf-8", "surrogatepass"))
    counts = {"samples": len(split.items), "shards": len(parts), "classes": num_classes, "missing": len(split.missing)}
    return _Plan(split, parts, {"format": FORMAT, "seed": options.seed, **counts, "digest": digest.hexdigest()})


def cut(num_samples: int, num_bytes: int, shard_size: int | None) -> list[int]:
    """Edges of shards of nearly equal numbers of samples: 0 = first < ... < last = `num_samples`.

    Args:
        num_samples: at least 1.
        num_bytes: of all of them.
        shard_size: most samples a shard; None: see `Options`.
    """
    most = shard_size or max(1, min(SHARD_SAMPLES, SHARD_BYTES * num_samples // max(num_bytes, 1)))
    num_shards = -(-num_samples // most)
    return [num_samples * i // num_shards for i in range(num_shards + 1)]


def _check_same(plan: _Plan, store: Store, there: set[str]) -> None:
    """Shards of two conversions must not mix: some samples would be there twice, others never."""
    file, pattern = f"{plan.split.name}.json", rf"{re.escape(plan.split.name)}-\d{{6}}[.]tar"
    if file in there:
        found = json.loads(store.read(file))
    elif shards := sum(re.fullmatch(pattern, name) is not None for name in there):
        found = {"shards": shards, "digest": "unknown"}
    else:
        return
    if found != plan.facts:
        expected = {name: plan.facts[name] for name in found if name in plan.facts}
        raise ConfigError(
            f"{store.root}/{file}: found shards of another conversion {found}, expected {expected}; write to another "
            f"folder, or remove {file} and {plan.split.name}-*.tar there"
        )


def _write_split(plan: _Plan, store: Store, there: set[str], workers: int) -> None:
    split = plan.split
    if f"{split.name}.json" not in there:
        store.publish(f"{split.name}.json", json.dumps(plan.facts, indent=1).encode() + b"\n")
    notes = list(split.notes)
    if split.missing:
        lines = "".join(f"{name}\n" for name in split.missing)
        store.publish(f"{split.name}-missing.txt", lines.encode("utf-8", "surrogateescape"))
        notes.append(f"{len(split.missing):,} images missing, see {split.name}-missing.txt")
    shards = {f"{split.name}-{index:06d}.tar": part for index, part in enumerate(plan.parts)}
    left = [name for name in shards if name not in there or not _is_whole(store, name)]
    with meter(split.name, len(left), Console(stderr=True)) as progress:
        _write_shards([(f"{store.root}/{name}", shards[name]) for name in left], workers, progress.advance)
    if store.is_local:
        _remove_rests(Path(store.path), split.name)
    before = f" ({len(shards) - len(left)} were there)" if len(left) < len(shards) else ""
    print(f"{store.root}/{split.name}-*.tar: {len(split.items):,} samples in {len(shards)} shards{before}")
    for note in notes:
        print(f"  {_printable(note)}")


def _is_whole(store: Store, name: str) -> bool:
    """Whether a shard ends as a tar does: a copy of one may be cut."""
    path = store.full(name)
    size = store.fs.size(path)
    return size > 0 and size % tarfile.RECORDSIZE == 0 and not any(store.fs.tail(path, 2 * tarfile.BLOCKSIZE))


def _write_shards(tasks: Sequence[tuple[str, list[Item]]], workers: int, advance: Callable[[int, int], None]) -> None:
    """Writes shards, of which the first that fails stops the rest; `advance` gets 1 and the samples of each."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            advance(1, _write(*task))
        return
    # Not forked: a child would inherit the locks of this process's threads. An interrupt is for the driver alone.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            for done in as_completed([pool.submit(_write, *task) for task in tasks]):
                advance(1, done.result())
        except BrokenProcessPool as error:
            raise RaycleanError(
                f"one of {workers} workers died; each holds a shard in memory: the same command with fewer --workers "
                "goes on"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(path: str, items: list[Item]) -> int:
    try:
        write_shard(path, (item.sample() for item in items))
    except OSError as error:
        raise RaycleanError(f"{path}: cannot be written: {error}; the same command goes on") from error
    return len(items)


def _remove_rests(folder: Path, name: str) -> None:
    """What killed workers left of shards that are whole by now."""
    pattern = re.compile(rf"[.]{re.escape(name)}-\d{{6}}[.]tar{re.escape(TEMPORARY)}.*")
    for file in folder.iterdir():
        if pattern.fullmatch(file.name):
            file.unlink(missing_ok=True)
