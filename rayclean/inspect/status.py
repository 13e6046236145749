"""How far a run is, from its files alone, and cheap enough to be asked again and again while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from rayclean.config import Config
from rayclean.run.failures import Failures, read_failures
from rayclean.run.grow import grow, stages
from rayclean.run.record import wall_times
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.storage.graph import Graph, Missing
from rayclean.storage.lease import TAKEOVER_S, current
from rayclean.storage.store import Store
from rayclean.storage.units import Job, num_blocks
from rayclean.train.stage import TrainJob, is_trained
from rayclean.train.task import RoleTask
from rayclean.train.trajectories import trajectory_name

RATE_FILES = 200  # whose times are asked for; on an object store each is a request


class Glance(Store):
    """A store that lists each folder once, however often jobs ask it what is missing."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._listed = cache(super().list)

    def list(self, folder: str) -> list[str]:
        """As when it was first asked for."""
        return self._listed(folder)


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is: all of its steps that are known.

    Attributes:
        done: units that are there; in training, epochs of all roles.
        per_s: units a second in the last start; None where the stage is not at work, or has hardly begun.
        wall_s: seconds that its finished steps took, over all starts; None where none has finished.
        failed: units that failed in the last start.
        cause: the first one's error.
        open_jobs: jobs whose units cannot be counted before what they read is there.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = "units"
    per_s: float | None = None
    wall_s: float | None = None
    failed: int = 0
    cause: str | None = None
    open_jobs: int = 0

    @property
    def is_done(self) -> bool:
        """Whether all units are there."""
        return self.done >= self.total and not self.open_jobs

    def with_record(self, wall_s: float | None, failures: Failures | None) -> StageStatus:
        """The same with what the starts have recorded of the stage; failures do not count where all is done."""
        if failures is None or self.is_done:
            return replace(self, wall_s=wall_s)
        return replace(self, wall_s=wall_s, failed=failures.count, cause=failures.units[0].error)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the steps that are known, at the rate of the last start."""
        return (self.total - self.done) / self.per_s if self.per_s else None


@dataclass(frozen=True)
class Driver:
    """Who holds the run, and how long ago its last sign of life was."""

    host: str
    pid: int
    heartbeat_age_s: float

    @property
    def is_alive(self) -> bool:
        """Whether another driver would still be refused."""
        return self.heartbeat_age_s < TAKEOVER_S


@dataclass(frozen=True)
class Status:
    """What `rayclean status` says.

    Attributes:
        stages: those whose jobs are named by now.
        later: stages whose jobs cannot be named yet, and what they wait for.
        driver: None where no driver holds the run.
    """

    stages: list[StageStatus]
    later: dict[str, str]
    driver: Driver | None

    @property
    def is_done(self) -> bool:
        """Whether all units are there."""
        return not self.later and all(stage.is_done for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        stages = [{**asdict(stage), "left_s": stage.left_s} for stage in self.stages]
        driver = self.driver and {**asdict(self.driver), "is_alive": self.driver.is_alive}
        return {"done": self.is_done, "stages": stages, "later": list(self.later), "driver": driver}


def read_status(config: Config, now_s: float | None = None) -> Status:
    """How far a run is.

    Args:
        config: the run.
        now_s: seconds since 1970; None: now.

    Raises:
        InputError: the run was never started.
    """
    store, now_s = Glance(config.run.dir), time.time() if now_s is None else now_s
    this, driver = look(config, store), _driver(store, now_s)
    # A start publishes its config before its first unit.
    since_s = store.modified_s(CONFIG_FILE) if store.exists(CONFIG_FILE) else 0.0
    graph = grow(this)
    wall_s, failures = wall_times(store), read_failures(store)
    counted = _stages(graph, Missing(), since_s, now_s if driver and driver.is_alive else None)
    stages = [each.with_record(wall_s.get(each.stage), failures.get(each.stage)) for each in counted]
    return Status(stages, {each.stage: each.why for each in graph.unnamed}, driver)


def _driver(store: Store, now_s: float) -> Driver | None:
    found = current(store)
    return None if found is None else Driver(found[0].host, found[0].pid, max(now_s - found[1], 0.0))


def _stages(graph: Graph, missing: Missing, since_s: float, now_s: float | None) -> Iterator[StageStatus]:
    """The stages of the jobs that are named by now and wanted, in the order of the path of the data."""
    by_stage: dict[str, list[Job]] = {}
    for job in graph.wanted(missing).values():
        by_stage.setdefault(job.stage, []).append(job)
    named = {job.stage for job in graph.jobs.values()}
    for stage in (each for each in stages() if each in named):
        yield _stage(stage, by_stage.get(stage, []), missing, since_s, now_s)


def _stage(stage: str, jobs: Sequence[Job], missing: Missing, since_s: float, now_s: float | None) -> StageStatus:
    if tasks := [job.task for job in jobs if isinstance(job, TrainJob)]:
        return _training(stage, tasks, since_s)
    there, total, open_jobs = list[str](), 0, 0
    for job in jobs:
        left = missing(job)
        if left is None:
            open_jobs += 1
            continue
        units, todo = job.units(), set(left)
        total += len(units)
        there += [job.file(unit) for unit in units if unit not in todo]
    per_s = units_per_s(jobs[0].store, there, since_s, now_s) if 0 < len(there) < total else None
    return StageStatus(stage, len(there), total, per_s=per_s, open_jobs=open_jobs)


def _training(stage: str, tasks: Sequence[RoleTask], since_s: float) -> StageStatus:
    """That of the roles; they are trained one after the other, so the rate is that of the last one at work."""
    counts = [_epochs(task) for task in tasks]
    at_work = [task for task, (done, total) in zip(tasks, counts, strict=True) if 0 < done < total]
    done, total = map(sum, zip(*counts, strict=True))
    return StageStatus(stage, done, total, "epochs", _epochs_per_s(at_work[-1], since_s) if at_work else None)


def _epochs(task: RoleTask) -> tuple[int, int]:
    """Epochs done, and epochs in all; a role that is not trained counts as one."""
    total = max(task.epochs, 1)
    if is_trained(task):
        return total, total
    epochs = task.store.list(f"{task.results()}/trajectories")
    if not epochs:
        return 0, total
    newest = task.store.list(f"{task.results()}/trajectories/{epochs[-1]}")
    is_whole = len(newest) >= num_blocks(task.catalog.num_rows, task.block_rows)
    return min(len(epochs) - (not is_whole), total - 1), total


def _epochs_per_s(task: RoleTask, since_s: float) -> float | None:
    """Over the epochs of the last start, by when their first blocks were published."""
    epochs = range(1, len(task.store.list(f"{task.results()}/trajectories")) + 1)
    times = []
    for epoch in epochs[-RATE_FILES:]:
        try:
            published_s = task.store.modified_s(f"{task.results()}/{trajectory_name(epoch, 0)}")
        except FileNotFoundError:  # the newest one's first block is still to come
            continue
        if published_s >= since_s:
            times.append(published_s)
    seconds = max(times) - min(times) if times else 0.0
    return (len(times) - 1) / seconds if seconds > 0 else None


def units_per_s(store: Store, files: Sequence[str], since_s: float, now_s: float | None) -> float | None:
    """Units a second since the first one of the last start, by the times of few files.

    Units are sent in order, so those of the last start are near the end of `files`; but where many actors each work
    through a group of units, those at the very end are of few actors. So files are looked at near the end and ever
    more sparsely towards the begin, and each counts for those from the one before, which is nearer to the end, to it.

    Args:
        store: the run's files.
        files: of the units that are done, in order.
        since_s: when the last start began.
        now_s: the end of the time that is measured while a driver is at work; else that is the last file.
    """
    from_end = sampled_distances(len(files))
    times = np.array([store.modified_s(files[-distance]) for distance in from_end])
    counts = np.diff([0, *from_end])
    new = times >= since_s
    if not new.any():
        return None
    first, last = times[new].min(), times[new].max()
    seconds = max(last, now_s or 0.0) - first
    published = counts[new].sum() - 1  # after the first one
    return float(published / seconds) if published and seconds > 0 else None


def sampled_distances(total: int) -> list[int]:
    """Which of so many files to look at, as distances 1..total from the end, ascending: at most RATE_FILES."""
    if total <= RATE_FILES:
        return list(range(1, total + 1))
    return sorted({round(distance) for distance in np.geomspace(1, total, RATE_FILES)})
