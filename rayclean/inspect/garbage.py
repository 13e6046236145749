"""What no current config reaches: folders of other settings, and files that a writer left half done.

A folder is garbage where the config of the last start does not lead to it, whether or not the stages before it are
done. What cannot be told yet stays, and so does every name that is not one of a stage's folders.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from rayclean.catalog.stage import FEATURES, catalog_mark, features_mark
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.config import Config
from rayclean.embed.sources import features_asked
from rayclean.errors import DamagedFile, InputError, RaycleanError
from rayclean.run.grow import grow, stages
from rayclean.run.run import Run
from rayclean.run.start import ASKED, CATALOG_FILE, look
from rayclean.storage.contents import read_json, read_table
from rayclean.storage.damage import ASIDE
from rayclean.storage.lease import hold
from rayclean.storage.published import find_published
from rayclean.storage.store import TEMPORARY, Store
from rayclean.storage.units import ENVIRONMENT_FILE
from rayclean.train.snapshots import snapshot_name
from rayclean.train.stage import DONE_FILE, WORKERS_FILE

CATALOG, TRAIN = "catalog", "train"
# What a start leaves in a folder before anything else: without it a folder of such a name is somebody else's.
_MARKS = {CATALOG: (SOURCES_FILE,), TRAIN: (WORKERS_FILE, DONE_FILE, snapshot_name(0))}
# Where a run's files lie beside its stages' folders, and what those that a writer has not finished are called.
_OTHERS = re.compile(r"record|labels|tables|lease|log|learn|report|(learn|lesson|export)-[0-9a-f]{8}")
_FEATURES_FILE = re.compile(r"[0-9a-f]{20}\.safetensors")  # of a shard
_UNFINISHED = re.compile(rf".+{re.escape(TEMPORARY)}.+-[0-9]+-[0-9]+")
ABANDONED_S = 3600.0  # after which a temporary file has no writer any more
LEAVING = f"{TEMPORARY}gc"  # ends the name of a folder that is being removed
# What says that a stage's jobs cannot be told: a file of an earlier stage, or one that the config names, is missing.
UNKNOWN_YET = (OSError, ValueError, KeyError, RaycleanError)


def score_kinds() -> tuple[str, ...]:
    """What folders of scores are called before their fingerprint; `decide` of earlier releases alone."""
    return (*(stage for stage in stages() if stage not in (CATALOG, TRAIN)), "decide")


def _stage_folder(name: str) -> re.Match[str] | None:
    """A stage's folder, its kind first."""
    kinds = f"{CATALOG}|{FEATURES}|{TRAIN}-[a-z][a-z0-9_]*|{'|'.join(score_kinds())}"
    return re.fullmatch(rf"({kinds})-[0-9a-f]{{8}}(-clips)?", name)


@dataclass(frozen=True)
class Reached:
    """What the config of the last start leads to.

    Attributes:
        folders: of its stages, as far as these are known.
        known: kinds whose folders are all known.
        cause: why others are not; None where all are.
    """

    folders: frozenset[str]
    known: tuple[str, ...]
    cause: str | None

    def is_garbage(self, folder: str) -> bool:
        """Whether a name is that of a folder that no stage of the config has."""
        match = _stage_folder(folder)
        return match is not None and match[1].partition("-")[0] in self.known and folder not in self.folders


@dataclass(frozen=True)
class Garbage:
    """What was removed, or would be.

    Attributes:
        sizes: bytes by name: folders, records, temporary files.
        kept: kinds of folders of which it cannot be told.
        cause: why.
        table: the folder that `labels/` comes from, where that is garbage: another config or version made it.
        refused: what could not be removed, and why.
    """

    sizes: dict[str, int]
    kept: tuple[str, ...]
    cause: str | None
    table: str | None
    refused: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of all of it."""
        return sum(self.sizes.values())


def collect(config: Config, dry_run: bool) -> Garbage:
    """Removes what no current config reaches.

    Args:
        config: of the last start.
        dry_run: only say what would be removed.

    Raises:
        InputError: the run was never started, or its files are not those of its config.
        RunHeldError: a driver is at work.
    """
    place = Store(config.run.dir)
    with nullcontext(place) if dry_run else hold(place) as store:
        reached = find_reached(config)
        folders = [name for name in store.list("") if reached.is_garbage(name) and _is_ours(store, name)]
        records = [name for name in store.list("record") if reached.is_garbage(name.removesuffix(".json"))]
        sizes = dict(_abandoned(store, folders))
        sizes |= {name: _num_bytes(store, name) for name in (*folders, *(f"record/{name}" for name in records))}
        refused: dict[str, str] = {}
        for name in () if dry_run else sizes:
            try:
                _remove(store, name, is_folder=name in folders)
            except OSError as e:
                refused[name] = e.strerror or str(e)
        kept = tuple(kind for kind in (CATALOG, FEATURES, TRAIN, *score_kinds()) if kind not in reached.known)
        merge = _merge_of_table(store)
        gone = {name: size for name, size in sizes.items() if name not in refused}
        said = tuple(f"{name}: {reason}" for name, reason in refused.items())
        return Garbage(gone, kept, reached.cause, merge if merge in gone else None, said)


def _is_ours(store: Store, folder: str) -> bool:
    """Whether a start of this run has made a folder: it holds what that leaves there first."""
    kind = folder.partition("-")[0]
    if kind == FEATURES:
        return any(map(_FEATURES_FILE.fullmatch, store.list(folder)))
    marks = _MARKS.get(kind, (ENVIRONMENT_FILE,))
    return any(store.exists(f"{folder}/{mark}") for mark in marks)


def _merge_of_table(store: Store) -> str | None:
    """The folder that `labels/` comes from; None where there is no table, or none that can be read."""
    try:
        published = find_published(store)
    except DamagedFile:
        return None
    return None if published is None else published.merge


def find_reached(config: Config) -> Reached:
    """The folders of all jobs that the config of the last start leads to, done or not.

    Raises:
        InputError: the run was never started, or its catalog is not that of its config.
    """
    this = look(config, Store(config.run.dir))
    _check_catalogs(this)
    catalogs = [this.source, this.validation, *this.derived.values(), *this.planted.values()]
    folders = {catalog.folder for catalog in catalogs if catalog is not None}
    folders |= {name for catalog in (this.source, this.validation) if catalog for name in _feature_folders(catalog)}
    known: tuple[str, ...] = (CATALOG, FEATURES)
    try:
        folders |= {role.task.folder for role in this.roles.values()}
        known += (TRAIN,)
        graph = grow(this)
    except UNKNOWN_YET as e:
        return Reached(frozenset(folders), known, f"{type(e).__name__}: {e}")
    folders |= {job.folder for job in graph.jobs.values()}
    if graph.unnamed:
        return Reached(frozenset(folders), known, f"{graph.unnamed[0].stage} is named {graph.unnamed[0].why} alone")
    return Reached(frozenset(folders), known + score_kinds(), None)


def _feature_folders(catalog: Catalog) -> set[str]:
    """Where the features of a catalog's rows lie, if they have any."""
    mark = features_mark(read_table(catalog.store, f"{catalog.folder}/{SOURCES_FILE}"))
    return set() if mark is None else {f"{FEATURES}-{mark}"}


def _check_catalogs(this: Run) -> None:
    """A start that was refused may have left word of another catalog than that of the config.

    Raises:
        InputError: so it is here; all that belongs to the config would look like garbage.
    """
    config = this.config
    marks = read_json(this.store, CATALOG_FILE)
    if marks.get(ASKED) != features_asked(config):
        raise _of_two_starts(this)
    sections = [(this.source, config.data, config.verified_label), (this.validation, config.validation_data(), None)]
    for catalog, data, verified in sections:
        mark = None
        if catalog is not None and data is not None:
            sources = read_table(this.store, f"{catalog.folder}/{SOURCES_FILE}")
            mark = catalog_mark(data, this.source_classes, sources, verified, features_mark(sources))
        if mark != (catalog and catalog.mark):
            raise _of_two_starts(this)


def _of_two_starts(this: Run) -> InputError:
    return InputError(
        f"{this.store.root}: config.yaml and the catalog are of two starts; give the `rayclean run` command that is "
        "meant once more, then this one"
    )


def _num_bytes(store: Store, name: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    files: dict[str, dict[str, int]] = store.fs.find(store.full(name), detail=True)
    return sum(entry["size"] or 0 for entry in files.values())


def _abandoned(store: Store, folders: Collection[str]) -> Iterator[tuple[str, int]]:
    """Names and bytes of what writers and removals that were killed have left in the run's own folders, and of damaged
    files that were set aside, but for folders that go anyway.

    An object store has none: what is not written whole is not there.
    """
    if not store.is_local:
        return
    before_s = time.time() - ABANDONED_S
    for at, inside, files in os.walk(store.path):
        if at == store.path:
            leaving = [name for name in inside if _stage_folder(name.removesuffix(LEAVING)) and name.endswith(LEAVING)]
            yield from ((name, _num_bytes(store, name)) for name in leaving)
            inside[:] = sorted(name for name in inside if name not in folders and _holds_files(store, name))
        for name in files:
            path = Path(at, name)
            with suppress(FileNotFoundError):  # its writer lives, and was faster
                is_left = _UNFINISHED.fullmatch(name) and path.stat().st_mtime < before_s
                if is_left or name.endswith(ASIDE):
                    yield str(path.relative_to(store.path)), path.stat().st_size


def _holds_files(store: Store, folder: str) -> bool:
    """Whether a folder is one in which the run publishes files."""
    return bool(_OTHERS.fullmatch(folder)) or (bool(_stage_folder(folder)) and _is_ours(store, folder))


def _remove(store: Store, name: str, is_folder: bool) -> None:
    """Removes a file or a folder.

    A local folder is renamed first: one that is half removed must not be taken for a stage's later on. On an object
    store a removal that was interrupted has to be finished by the same command before another config is run.
    """
    if store.is_local and is_folder:
        os.rename(store.full(name), store.full(name + LEAVING))
        name += LEAVING
    store.remove(name)
