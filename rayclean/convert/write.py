"""Samples become WebDataset shards, in parallel; what was stopped goes on.

    OUT/classes.txt         one class per line, by label; for `data.classes`
    OUT/SPLIT.json          seed, counts and digest of the conversion that the shards belong to
    OUT/SPLIT-000000.tar    KEY.EXT, the very bytes of the image, and KEY.json: `label`, further labels, `path`
    OUT/SPLIT-missing.txt   listed images that were not there, if any

A shard appears whole or not at all, and the same samples and options give the same bytes for any number of workers,
so the same command goes on after a kill. Each worker holds one shard in memory.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rayclean.cluster.progress import meter
from rayclean.convert.plan import Plan, check, class_lines, make_plan
from rayclean.convert.samples import Found, Item, Options
from rayclean.errors import ConfigError, RaycleanError
from rayclean.shards.write import write_shard
from rayclean.storage.store import TEMPORARY, Store


@dataclass(frozen=True)
class Written:
    """A split whose shards are all there.

    Attributes:
        shards: a pattern of their paths.
        num_samples: in all of them.
        num_shards: all of them.
        num_before: those that were there already.
        notes: what else its user should know.
    """

    shards: str
    num_samples: int
    num_shards: int
    num_before: int
    notes: Sequence[str]


def write(found: Found, out: str, options: Options, console: Console) -> Iterator[Written]:
    """Writes the shards that are not there yet, split by split; none before all splits are known to be fine.

    Args:
        found: what a layout has listed.
        out: local folder or fsspec URL.
        options: how.
        console: where progress is shown.

    Yields:
        Each split, once it is there.

    Raises:
        InputError: more missing images than allowed, a key twice, a class name that is no line of text.
        ConfigError: the output cannot be written, or holds shards of another conversion.
        RaycleanError: a shard could not be written; the same command goes on.
    """
    for split in found.splits:
        check(split, options.max_missing)
    text = class_lines(found.classes)
    plans = [make_plan(split, options, len(found.classes)) for split in found.splits]
    try:
        store = Store(out)
        there = set(store.list(""))
        for plan in plans:
            _check_same(plan, store, there)
        _publish_classes(store, text)
        for plan in plans:
            yield _write_split(plan, store, there, options.workers, console)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error}; check the path and the access rights") from error


def _publish_classes(store: Store, text: bytes) -> None:
    if not store.exists("classes.txt"):
        store.publish("classes.txt", text)
    elif (there := store.read("classes.txt")) != text:
        found, expected = (each.decode("utf-8", "replace").splitlines() for each in (there, text))
        raise ConfigError(
            f"{store.root}/classes.txt: found {len(found)} classes ({', '.join(found[:3])}, ...), expected "
            f"{len(expected)} ({', '.join(expected[:3])}, ...); write other classes to another folder"
        )


def _check_same(plan: Plan, store: Store, there: set[str]) -> None:
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


def _write_split(plan: Plan, store: Store, there: set[str], workers: int, console: Console) -> Written:
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
    with meter(split.name, len(left), console) as progress:
        _write_shards([(f"{store.root}/{name}", shards[name]) for name in left], workers, progress.advance)
    if store.is_local:
        _remove_rests(Path(store.path), split.name)
    pattern = f"{store.root}/{split.name}-*.tar"
    return Written(pattern, len(split.items), len(shards), len(shards) - len(left), notes)


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
