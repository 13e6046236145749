"""The unit protocol: a stage is a list of units, a unit is a pure function whose result is one published file.

Done means that its files are there: its own, and those beside it. So any number of workers, retries, kills and leftover
workers of a dead driver give the same bytes, and a rerun computes what is missing and nothing else.
"""

from __future__ import annotations

import errno
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rayclean.errors import EnvironmentMixError
from rayclean.storage.contents import Content, create, read_json, write
from rayclean.storage.store import Store

ENVIRONMENT_FILE = "_environment.json"
TRAIN = "train"  # the pool of jobs that Ray Train does
RETRY_PAUSES_S = (0.5, 2.0, 8.0)


@dataclass(frozen=True)
class UnitResult:
    """What a unit computed.

    Attributes:
        content: the unit's own file; that it exists means that the unit is done.
        beside: further files of the unit (paths relative to the job's folder), published before it.
        rows: samples that it covered, for progress.
        facts: counters that the driver adds up for the record; they must not depend on who computed them.
    """

    content: Content
    beside: Mapping[str, Content] = field(default_factory=dict)
    rows: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job(ABC):
    """One stage on one input (a snapshot, a role): all that a worker needs to compute any of its units.

    A job is small and picklable; the driver lists its units, a worker opens it once and computes many.

    Attributes:
        store: the run's files.
        folder: where its results go, `<stage>-<fingerprint>`; jobs that build on each other may share one.
        after: the jobs whose results it reads, all of them; empty where what it reads is named by its content.
        stage: what people call this kind of work.
        pool: what computes it: `cpu`, `gpu` where networks run or vectors are searched, `train` for Ray Train.
        lists_inputs: whether its units can be listed only when what it reads is there.
    """

    store: Store
    folder: str
    after: tuple[Job, ...] = field(default=(), kw_only=True, compare=False, repr=False)
    stage: ClassVar[str] = ""
    suffix: ClassVar[str] = ".safetensors"
    pool: ClassVar[str] = "cpu"
    lists_inputs: ClassVar[bool] = False

    @abstractmethod
    def units(self) -> Sequence[str]:
        """Names of all units, in order; a name is its file's path in the folder, without the suffix."""

    @abstractmethod
    def open(self) -> Callable[[str], UnitResult]:
        """Loads what the units share and returns the function that computes one."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other job of a run."""
        return type(self).__name__, self.folder

    def file(self, unit: str) -> str:
        """The path of a unit's file in the store."""
        return f"{self.folder}/{unit}{self.suffix}"

    def beside(self, unit: str) -> Sequence[str]:
        """Further files that a unit publishes, by their paths in the folder; a unit is done when all are there."""
        return ()

    def all_files(self, unit: str) -> list[str]:
        """The paths of all files of a unit in the store, its own last."""
        return [*(f"{self.folder}/{name}" for name in self.beside(unit)), self.file(unit)]

    def missing(self) -> list[str]:
        """Units of which a file is not there, in order."""
        there: dict[str, set[str]] = {}

        def is_there(file: str) -> bool:
            folder, _, name = file.rpartition("/")
            if folder not in there:
                there[folder] = set(self.store.list(folder))
            return name in there[folder]

        return [unit for unit in self.units() if not all(map(is_there, self.all_files(unit)))]

    def is_done(self, unit: str) -> bool:
        """Whether all files of a unit are there."""
        return all(map(self.store.exists, self.all_files(unit)))


def check_environment(store: Store, folder: str, stamp: str, mix_allowed: bool) -> None:
    """Refuses to add files to a folder whose files were computed elsewhere.

    Raises:
        EnvironmentMixError: another environment computed what lies there.
    """
    name = f"{folder}/{ENVIRONMENT_FILE}"
    new = json.loads(stamp)
    if create(store, name, new, stamp) or mix_allowed:
        return
    old = read_json(store, name)
    if old == new:
        return
    changed = [f"{key}: {old.get(key)} there, {new[key]} here" for key in new if old.get(key) != new[key]]
    raise EnvironmentMixError(
        f"{folder} holds units computed in another environment ({'; '.join(changed)}); finish the run there, "
        f"remove {folder}, or set run.mix_environments=true to accept results that differ in their last bits"
    )


def compute_and_publish(job: Job, compute: Callable[[str], UnitResult], unit: str, stamp: str) -> UnitResult:
    """Computes one unit and publishes its files, the unit's own last.

    I/O errors are retried three times with growing pauses; any other error, and a full disk, is raised at once.
    """
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            result = compute(unit)
            if set(result.beside) != set(job.beside(unit)):  # a file that is not named would never be made again
                raise ValueError(f"{job.stage} {unit}: publishes {set(result.beside)}, names {set(job.beside(unit))}")
            for name, content in result.beside.items():
                write(job.store, f"{job.folder}/{name}", content, stamp)
            write(job.store, job.file(unit), result.content, stamp)
            return result
        except (OSError, TimeoutError) as e:
            if pause_s is None or is_full_disk(e):
                raise
            time.sleep(pause_s)
    raise AssertionError("unreachable")


def is_full_disk(error: Exception) -> bool:
    """Whether somebody has to make room before a retry can help."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def block_name(index: int) -> str:
    """The name of the index-th block: sorts as it counts."""
    return f"{index:06d}"


def block_range(index: int, size: int, total: int) -> tuple[int, int]:
    """The half-open range of the index-th block of `size` out of `total`."""
    return index * size, min((index + 1) * size, total)


def num_blocks(total: int, size: int) -> int:
    """How many blocks of `size` cover `total`."""
    return -(-total // size)


def block_names(total: int, size: int) -> list[str]:
    """Names of all blocks of `size` that cover `total`."""
    return [block_name(i) for i in range(num_blocks(total, size))]
