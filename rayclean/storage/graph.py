"""Which units may run: jobs, what they read, and the units whose inputs are there. No Ray, no threads.

A graph grows: some jobs can be named only when others are done (rows once the catalog is there, embeddings once a
network is trained). Whoever computes it asks for it anew then; jobs that were there before are the same by their keys.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rayclean.storage.units import TRAIN, Job

Key: TypeAlias = tuple[str, str]  # of a job: its kind and its folder


@dataclass(frozen=True)
class Unnamed:
    """Work that cannot be named yet: which, and what it waits for."""

    stage: str
    why: str


@dataclass
class Graph:
    """What a config leads to, as far as it can be named.

    Attributes:
        jobs: by key, each after those that it reads.
        targets: keys of those whose results are wanted in any case; others only while something wanted lacks them.
        unnamed: what follows.
    """

    jobs: dict[Key, Job] = field(default_factory=dict)
    targets: dict[Key, None] = field(default_factory=dict)
    unnamed: list[Unnamed] = field(default_factory=list)

    def want(self, *jobs: Job) -> None:
        """Adds jobs whose results are wanted, and all that they read."""
        for job in jobs:
            self._add(job)
            self.targets[job.key] = None

    def _add(self, job: Job) -> None:
        if job.key not in self.jobs:
            for before in job.after:
                self._add(before)
            self.jobs[job.key] = job

    def up_to(self, stage: str) -> Graph:
        """The part that leads to the jobs of a stage; all of it while these have no name."""
        if any(each.stage == stage for each in self.unnamed):
            return self
        part = Graph(unnamed=self.unnamed)
        part.want(*(job for job in self.jobs.values() if job.stage == stage))
        return part

    def wanted(self, missing: Callable[[Job], Sequence[str] | None]) -> dict[Key, Job]:
        """The jobs that have to be there, by key and in order: targets, and what unfinished wanted ones read.

        Args:
            missing: the units of a job that are not there; None where that cannot be told yet.
        """
        found = set(self.targets)
        for key, job in reversed(self.jobs.items()):
            if key in found and missing(job) != []:
                found.update(before.key for before in job.after)
        return {key: job for key, job in self.jobs.items() if key in found}


class Missing:
    """The units of jobs that are not there, each job's listed once.

    Args:
        done: keys of jobs that are known to be done.
    """

    def __init__(self, done: Iterable[Key] = ()) -> None:
        self._listed: dict[Key, Sequence[str] | None] = {key: [] for key in done}

    def __call__(self, job: Job) -> Sequence[str] | None:
        """A job's units that are not there; None where they cannot be listed before what it reads is there."""
        if job.key not in self._listed:
            can_list = not job.lists_inputs or all(self(before) == [] for before in job.after)
            self._listed[job.key] = job.missing() if can_list else None
        return self._listed[job.key]


@dataclass
class _Open:
    """A wanted job whose inputs are there."""

    job: Job
    rank: int
    order: int
    ready: deque[str]
    at_work: int = 0
    failed: bool = False


class Schedule:
    """Hands out each missing unit once, when what it reads is there; those on the longest chain of jobs first.

    Args:
        grow: the graph as far as it can be named by now; asked again after each job while some of it has no name.
    """

    def __init__(self, grow: Callable[[], Graph]) -> None:
        self.grow = grow
        self.graph = Graph()
        self._open: dict[Key, _Open] = {}
        self._done: set[Key] = set()
        self._wanted: dict[Key, Job] = {}
        self._ranks: dict[Key, int] = {}
        self._grow()

    def pop(self, pools: Container[str], opened: Container[Key] = ()) -> tuple[Job, str] | None:
        """The next unit of some pools: of the most urgent job, of one that is open where several are as urgent."""
        ready = [each for each in self._open.values() if each.ready and each.job.pool in pools]
        if not ready:
            return None
        best = max(ready, key=lambda each: (each.rank, each.job.key in opened, -each.order))
        best.at_work += 1
        return best.job, best.ready.popleft()

    def num_ready(self, pools: Container[str]) -> int:
        """How many units of some pools could begin now."""
        return sum(len(each.ready) for each in self._open.values() if each.job.pool in pools)

    def num_open(self) -> dict[str, int]:
        """By stage, units that can run by now: ready or at work; a training counts its epochs itself."""
        counts: Counter[str] = Counter()
        for each in self._open.values():
            if each.job.pool != TRAIN:
                counts[each.job.stage] += len(each.ready) + each.at_work
        return counts

    def done(self, job: Job) -> bool:
        """A unit of a job is there; whether the job is done by it."""
        each = self._open[job.key]
        each.at_work -= 1
        if each.ready or each.at_work or each.failed:
            return False
        del self._open[job.key]
        self._done.add(job.key)
        if self.graph.unnamed:
            self._grow()
        else:
            self._advance(Missing(self._done))
        return True

    def fail(self, job: Job) -> None:
        """A unit of a job will not be there: what reads it never begins, all others go on."""
        each = self._open[job.key]
        each.at_work, each.failed = each.at_work - 1, True

    def _grow(self) -> None:
        """Takes in what can be named by now."""
        self.graph, missing = self.grow(), Missing(self._done)
        self._wanted = self.graph.wanted(missing)
        self._ranks = dict.fromkeys(self._wanted, 0)
        for key, job in reversed(self._wanted.items()):
            for before in job.after:
                if before.key in self._ranks:
                    self._ranks[before.key] = max(self._ranks[before.key], self._ranks[key] + 1)
        self._advance(missing)

    def _advance(self, missing: Missing) -> None:
        """Opens the jobs whose inputs are there by now; one without missing units is done itself."""
        for order, (key, job) in enumerate(self._wanted.items()):
            if key not in self._done and key not in self._open and self._reads_what_is_there(job):
                units = missing(job)
                if units:
                    self._open[key] = _Open(job, self._ranks[key], order, deque(units))
                else:
                    self._done.add(key)

    def _reads_what_is_there(self, job: Job) -> bool:
        """Whether all jobs that it reads are done; those that nothing wants any more have done their part."""
        return all(before.key in self._done or before.key not in self._wanted for before in job.after)
