"""A pool of Ray actors that lives as long as a run: units sent one by one, deaths counted, actors replaced.

Ray restarts nothing here. A dead actor is replaced by the driver, so that a unit's tries are known exactly: a death
counts for the unit that was being computed; those after it in its queue had not begun and go back.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import psutil
import ray

from rayclean.cluster.connect import last_line
from rayclean.cluster.last_words import LastWords
from rayclean.cluster.nodes import keep_freed_memory
from rayclean.cluster.sizing import Workers
from rayclean.errors import DamagedFile, StageError
from rayclean.storage.fingerprint import environment_stamp
from rayclean.storage.graph import Key, Schedule
from rayclean.storage.units import Job, UnitResult, check_environment, compute_and_publish

TRIES = 3  # processes that may die of a unit
BROKEN = 3  # actors in a row that did not come up
OPEN_JOBS = 4  # that an actor keeps open
DEPTH = 2  # units sent to an actor: the next one is there when one ends
LEAST_UNITS = 16  # that an actor computes before it leaves for its memory: what one unit needs, the next one needs too
WORKER_DIED = "its worker process died each time"


class Row(NamedTuple):
    """What an actor tells of a unit; counters alone, the published files are the truth."""

    rows: int = 0
    facts: dict[str, float] | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    held_bytes: int = 0
    error: str = ""
    damaged: tuple[str, str] | None = None


class UnitActor:
    """Computes units of any job; opens a job at its first unit and keeps the last few open."""

    def __init__(self, workers: Workers, mix_allowed: bool, pool: str) -> None:
        self.words = LastWords(pool)
        self.mix_allowed = mix_allowed
        self.jobs: dict[Key, Job] = {}
        self.opened: OrderedDict[Key, Callable[[str], UnitResult]] = OrderedDict()
        keep_freed_memory()
        threads = int(os.environ.get("OMP_NUM_THREADS") or workers.threads)
        self.stamp = environment_stamp(threads, _device_name(workers.device))

    def take(self, job: Job) -> None:
        """A job whose units follow; it travels once per actor."""
        self.jobs[job.key] = job

    def run(self, key: Key, unit: str) -> Row:
        """Computes and publishes a unit, unless it is there: another actor may have died just after it."""
        started_s, job, row = time.monotonic(), self.jobs[key], Row()
        try:
            if not job.is_done(unit):
                with self.words.doing(job.file(unit)):
                    result = compute_and_publish(job, self._opened(job), unit, self.stamp)
                row = Row(result.rows, dict(result.facts))
        except Exception as e:
            damaged = (e.path, e.reason) if isinstance(e, DamagedFile) else None
            row = Row(error=f"{type(e).__name__}: {e}", damaged=damaged)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return row._replace(
            seconds=time.monotonic() - started_s, peak_rss_bytes=peak, held_bytes=held_bytes(psutil.Process())
        )

    def _opened(self, job: Job) -> Callable[[str], UnitResult]:
        if job.key not in self.opened:
            check_environment(job.store, job.folder, self.stamp, self.mix_allowed)
            while len(self.opened) >= OPEN_JOBS:
                self.opened.popitem(last=False)
            self.opened[job.key] = job.open()
        self.opened.move_to_end(job.key)
        return self.opened[job.key]


def held_bytes(process: psutil.Process) -> int:
    """Memory that is a process's own: mapped files, which its neighbours share and the kernel may drop, are not."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name())


class Sent(NamedTuple):
    """A unit on its way."""

    job: Job
    unit: str


@dataclass
class _Worker:
    """An actor, and what was sent to it, in the order in which it computes."""

    handle: Any
    sent: deque[tuple[ray.ObjectRef, Sent]] = field(default_factory=deque)
    taken: set[Key] = field(default_factory=set)
    opened: deque[Key] = field(default_factory=lambda: deque(maxlen=OPEN_JOBS))
    num_done: int = 0
    is_leaving: bool = False

    def send(self, what: Sent) -> None:
        """Sends a unit, and its job before its first one."""
        key = what.job.key
        if key not in self.taken:
            self.handle.take.remote(replace(what.job, after=()))
            self.taken.add(key)
        if key in self.opened:
            self.opened.remove(key)
        self.opened.append(key)
        self.sent.append((self.handle.run.remote(key, what.unit), what))


class Pool:
    """Up to `size` actors of one kind. Those that do not fit wait in Ray for a node; `size` may change at any time.

    Args:
        names: the kinds of jobs that it computes.
        workers: how many actors at most, and what each may use.
        mix_allowed: accept units of another environment.
        words: names the processes whose deaths are asked for together.
        share_bytes: of memory, that an actor may hold; one that holds more after a unit ends, and another takes its
            place: what libraries keep, and do not give back, would end it at a worse moment.
    """

    def __init__(
        self, names: tuple[str, ...], workers: Workers, mix_allowed: bool, words: str, share_bytes: float = math.inf
    ) -> None:
        self.names, self.workers, self.share_bytes = names, workers, share_bytes
        self.size = workers.actors
        self.started = self.deaths = self.left = 0
        self._arguments = (workers, mix_allowed, words)
        self._starting: dict[ray.ObjectRef, _Worker] = {}
        self._up: list[_Worker] = []
        self._back: list[Sent] = []  # sent to an actor that died before it began them
        self._suspects: list[Sent] = []  # an actor died while it computed them
        self._tries: dict[tuple[Key, str], int] = {}
        self._broken = 0

    @property
    def actors(self) -> int:
        """How many actors hold or wait for resources."""
        return len(self._starting) + len(self._up)

    @property
    def at_work(self) -> int:
        """Units that are sent."""
        return sum(len(worker.sent) for worker in self._up)

    @property
    def is_waiting(self) -> bool:
        """Whether there are units, and no actor is up."""
        return not self._up and bool(self._starting)

    def units(self, schedule: Schedule) -> int:
        """Units that are ready or sent."""
        return schedule.num_ready(self.names) + len(self._back) + len(self._suspects) + self.at_work

    def fill(self, schedule: Schedule) -> None:
        """Starts actors for the units there are, ends idle ones above the size, sends what is ready."""
        wanted = min(self.size, self.units(schedule))
        while self.actors < wanted:
            worker = _Worker(self._start())
            self._starting[worker.handle.__ray_ready__.remote()] = worker
        self._shrink(self.size)
        staying = [worker for worker in self._up if not worker.is_leaving]
        for depth in range(DEPTH if len(self._up) <= self.size else 0):  # everybody a first unit before a second one
            for worker in staying:
                if len(worker.sent) == depth and not (worker.sent and self._is_suspect(worker.sent[0][1])):
                    found = self._next(schedule, worker)
                    if found is not None:
                        worker.send(found)

    def _start(self) -> Any:
        self.started += 1
        actor = ray.remote(UnitActor).options(
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus or None,
            max_restarts=0,
            max_task_retries=0,
        )
        return actor.remote(*self._arguments)

    def _is_suspect(self, what: Sent) -> bool:
        return (what.job.key, what.unit) in self._tries

    def _next(self, schedule: Schedule, worker: _Worker) -> Sent | None:
        """A suspect gets an actor of its own, and only half of them may be risked at once."""
        risked = sum(1 for each in self._up if each.sent and self._is_suspect(each.sent[0][1]))
        if self._suspects and not worker.sent and risked < max(1, len(self._up) // 2):
            return self._suspects.pop()
        if self._back:
            return self._back.pop()
        found = schedule.pop(self.names, worker.opened)
        return None if found is None else Sent(*found)

    def _shrink(self, size: int) -> None:
        """Ends actors above a size: those that are starting, then idle ones; a unit that runs is let to its end."""
        excess = self.actors - size
        for ref in list(self._starting)[: max(0, excess)]:
            ray.kill(self._starting.pop(ref).handle)
            excess -= 1
        for worker in [each for each in self._up if not each.sent][: max(0, excess)]:
            ray.kill(worker.handle)
            self._up.remove(worker)

    def refs(self) -> list[ray.ObjectRef]:
        """What is waited for."""
        return [*self._starting, *(ref for worker in self._up for ref, _ in worker.sent)]

    def collect(self, ready: set[ray.ObjectRef]) -> list[tuple[Sent, Row]]:
        """What became of units; actors that came up, or died, are taken in.

        Raises:
            StageError: actors do not come up.
        """
        for ref in ready & self._starting.keys():
            self._take_up(ref)
        found: list[tuple[Sent, Row]] = []
        for worker in list(self._up):
            while worker.sent and worker.sent[0][0] in ready:
                ref, what = worker.sent[0]
                try:
                    row = ray.get(ref)
                except ray.exceptions.RayActorError:
                    found += self._bury(worker)
                    break
                except ray.exceptions.RayError as e:  # what it told could not be read
                    row = Row(error=last_line(e))
                worker.sent.popleft()
                worker.num_done += 1
                found.append((what, row))
                worker.is_leaving |= row.held_bytes > self.share_bytes and worker.num_done >= LEAST_UNITS
            if worker.is_leaving and not worker.sent and worker in self._up:
                ray.kill(worker.handle)
                self._up.remove(worker)
                self.left += 1
        return found

    def _take_up(self, ref: ray.ObjectRef) -> None:
        worker = self._starting.pop(ref)
        try:
            ray.get(ref)
        except ray.exceptions.RayError as e:
            self._broken += 1
            if self._broken >= BROKEN:
                raise StageError(f"workers do not start: {last_line(e)}") from e
        else:
            self._broken = 0
            self._up.append(worker)

    def _bury(self, worker: _Worker) -> list[tuple[Sent, Row]]:
        """The first unit was being computed when the actor died, those after it had not begun."""
        self.deaths += 1
        self._up.remove(worker)
        _, what = worker.sent.popleft()
        self._back += [behind for _, behind in worker.sent]
        key = what.job.key, what.unit
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] < TRIES:
            self._suspects.append(what)
            return []
        return [(what, Row() if what.job.is_done(what.unit) else Row(error=WORKER_DIED))]

    def close(self) -> None:
        """Ends all actors."""
        for worker in [*self._starting.values(), *self._up]:
            ray.kill(worker.handle)
        self._starting, self._up, self._back, self._suspects = {}, [], [], []
