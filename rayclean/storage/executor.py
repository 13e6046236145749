"""What computes a graph of jobs, and what it tells of each; in this process here, on Ray in `cluster/`."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeAlias

from rayclean.errors import DamagedFile
from rayclean.storage.graph import Graph, Key, Schedule
from rayclean.storage.resume import Resume, State
from rayclean.storage.store import Store
from rayclean.storage.units import TRAIN, Job, UnitResult, check_environment, compute_and_publish

POOLS = ("cpu", "gpu")
Report: TypeAlias = Callable[[int, State | None], None]
# What each rank runs: the task, its index, the number of ranks, where to go on, and what to call after each epoch.
TrainFunction: TypeAlias = Callable[[Any, int, int, Resume, Report], None]


class Trainer(Protocol):
    """Runs a train function to its end, going on from the last checkpoint of an earlier start."""

    def __call__(
        self,
        function: TrainFunction,
        task: Any,
        store: Store,
        folder: str,
        lost: int | None = None,
        stop: int | None = None,
    ) -> None:
        """Trains.

        Args:
            function: picklable, what each rank does. Its report is called by every rank at the end of each epoch with
                the epoch and, on rank 0, the state, of plain values and tensors; what the epoch publishes lies in the
                store by then.
            task: handed to it.
            store: the run's files.
            folder: below which the checkpoints lie.
            lost: the first epoch of which a published file is missing, to go on from there; None where none is.
            stop: the epoch to end after, where all were trained before.

        Raises:
            StageError: the workers failed more often than they are restarted.
            DamageFound: they met files of the run that are not what was written.
        """


@dataclass
class JobReport:
    """What became of one job's units in this start; `facts` are sums over the units computed now.

    Attributes:
        started_s: when its first unit was sent, by the driver's monotonic clock; `ended_s` likewise of the last.
        damaged: by path, files that units met and could not read, and why.
        error: the first error, where it was raised in the driver: all of a training's, a unit's without workers.
    """

    job: Job
    units: int = 0
    rows: int = 0
    busy_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    peak_rss_bytes: int = 0
    facts: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    def note(self, unit: str, error: Exception) -> None:
        """Takes down what a unit raised in this process."""
        self.failed[unit] = f"{type(error).__name__}: {error}"
        self.error = self.error or error
        if isinstance(error, DamagedFile):
            self.damaged[error.path] = error.reason

    def add(self, rows: int, facts: Mapping[str, float]) -> None:
        """Counts a unit that is done."""
        self.units += 1
        self.rows += rows
        for name, value in facts.items():
            self.facts[name] = self.facts.get(name, 0) + value


class Meter(Protocol):
    """Is told how far a piece of work is."""

    def advance(self, units: int = 1, rows: int = 0, failed: int = 0, bad: int = 0) -> None:
        """Adds finished units, their samples, failed units and bad samples."""


class Watcher:
    """Is told how far a graph is; this one shows nothing."""

    def opened(self, counts: Mapping[str, int]) -> None:
        """By stage, units that can run by now and are not done."""

    def meter(self, stage: str, total: int = 0) -> Meter:
        """What is told of a stage's units, `total` in all as far as is known."""
        return _Silent()

    def ended(self, report: JobReport) -> None:
        """A job is done, or all of it that can be done."""


class _Silent:
    def advance(self, units: int = 1, rows: int = 0, failed: int = 0, bad: int = 0) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class TrainingJob(Job):
    """A job that is one training, which all workers of training do together."""

    pool: ClassVar[str] = TRAIN

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing that one worker could do alone."""
        raise NotImplementedError

    @property
    @abstractmethod
    def label(self) -> str:
        """What failures and records call it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What its progress is shown as."""

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Epochs in all, at least one."""

    @abstractmethod
    def train(self, trainer: Trainer, meter: Meter) -> None:
        """Trains to the end, going on where an earlier start left it.

        Args:
            trainer: what runs it.
            meter: is told of each epoch.
        """


class Executor(Protocol):
    """Computes what is missing of a graph."""

    train: Trainer

    @property
    def facts(self) -> Mapping[str, float]:
        """What it took so far, for the record."""

    def run(self, grow: Callable[[], Graph], watcher: Watcher) -> list[JobReport]:
        """Computes all units that can be computed.

        Args:
            grow: see `Schedule`.
            watcher: is told of each unit that ended.

        Returns:
            One report per job of which anything was done. Only counters travel: the published files are the truth.

        Raises:
            StageError: nothing runs at all.
        """


def train_here(
    function: TrainFunction, task: Any, store: Store, folder: str, lost: int | None = None, stop: int | None = None
) -> None:
    """Trains as one rank in this process, from the start: it leaves no checkpoints."""
    function(task, 0, 1, Resume(), lambda epoch, state: None)


class Inline:
    """Computes a graph in this process, unit by unit.

    Args:
        stamp: the environment that files are marked with.
        train: what trains.
        mixes: accept units of another environment.
        notes: note what a unit raises, and go on with all that does not depend on it; else it passes.
    """

    def __init__(self, stamp: str = "{}", train: Trainer = train_here, mixes: bool = True, notes: bool = True) -> None:
        self.stamp, self.train, self.mixes, self.notes = stamp, train, mixes, notes

    @property
    def facts(self) -> Mapping[str, float]:
        """Nothing is started."""
        return {}

    def run(self, grow: Callable[[], Graph], watcher: Watcher | None = None) -> list[JobReport]:
        """As `Executor.run`."""
        schedule, watcher = Schedule(grow), watcher or Watcher()
        reports: dict[Key, JobReport] = {}
        key, compute = None, None
        while True:
            watcher.opened(schedule.num_open())
            if (found := schedule.pop((*POOLS, TRAIN))) is None:
                break
            job, unit = found
            begun_s = time.monotonic()
            report = reports.setdefault(job.key, JobReport(job, started_s=begun_s))
            try:
                if isinstance(job, TrainingJob):
                    job.train(self.train, watcher.meter(job.title, job.epochs))
                    report.add(0, {})
                else:
                    if compute is None or key != job.key:
                        check_environment(job.store, job.folder, self.stamp, self.mixes)
                        key, compute = job.key, job.open()
                    result = compute_and_publish(job, compute, unit, self.stamp)
                    report.add(result.rows, result.facts)
                    watcher.meter(job.stage).advance(rows=result.rows)
            except Exception as e:
                if not self.notes:
                    raise
                report.note(unit, e)
                schedule.fail(job)
                continue
            finally:
                report.ended_s = time.monotonic()
                report.busy_s += report.ended_s - begun_s
            if schedule.done(job):
                watcher.ended(report)
        for report in reports.values():
            if report.failed:
                watcher.ended(report)
        return list(reports.values())


def run_inline(jobs: Iterable[Job], stamp: str = "{}") -> None:
    """Computes what is missing of some jobs in this process, one after the other: for tests and small tools.

    Raises:
        Exception: the first error that a unit raised.
    """
    for job in jobs:
        graph = Graph()
        graph.want(replace(job, after=()))
        Inline(stamp, notes=False).run(lambda graph=graph: graph)  # type: ignore[misc]
