"""The executor of a run: the driver holds the graph and sends each unit to a pool of actors as soon as it may run.

No barriers: families and snapshots overlap, and a device never waits for the last unit of another stage. Training is a
job like others; while Ray Train has its CPUs and GPUs the pools keep what is left.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any

import ray

from rayclean.cluster.book import Book
from rayclean.cluster.nodes import memory_share, node_sizes, what_is_there
from rayclean.cluster.pool import Pool, Row, Sent
from rayclean.cluster.sizing import Workers, beside
from rayclean.cluster.trainer import in_thread, is_placed, run_training
from rayclean.errors import StageError
from rayclean.storage.executor import POOLS, JobReport, Trainer, TrainFunction, TrainingJob, Watcher
from rayclean.storage.graph import Graph, Schedule
from rayclean.storage.store import Store
from rayclean.storage.units import TRAIN, Job

POLL_S = 0.2  # how often a training is looked at
LOOK_S = 5.0  # and what is waited for, where nothing trains
TOLD_S = 30.0  # without anything at work, after which a line says what is waited for
SILENCE_S = 300.0  # and after which the run ends with an error
log = logging.getLogger(__name__)


class Actors(AbstractContextManager["Actors"]):
    """Computes graphs on pools of actors that live as long as the block.

    Args:
        workers: of `cpu`, `gpu` and `train`, settled; the first two are the same where one pool does all.
        mix_allowed: accept units of another environment.
    """

    def __init__(self, workers: Mapping[str, Workers], mix_allowed: bool) -> None:
        self.workers = workers
        self.trainer: Trainer = partial(run_training, workers=workers[TRAIN])
        self.train: Trainer = self._train_alone
        self.words = uuid.uuid4().hex
        names = {"cpu": POOLS} if workers["cpu"] is workers["gpu"] else {"gpu": ("gpu",), "cpu": ("cpu",)}
        self.pools = [
            Pool(each, workers[name], mix_allowed, self.words, memory_share(workers[name]))
            for name, each in names.items()
        ]
        self.started_s = self.looked_s = time.monotonic()
        self.idle_s = 0.0
        self.told = False

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def facts(self) -> dict[str, float]:
        """Actor processes started, that died, that left for their memory, that there are at most; seconds, and those
        with nothing at work.
        """
        return {
            "actors_started": sum(pool.started for pool in self.pools),
            "actors_died": sum(pool.deaths for pool in self.pools),
            "actors_left": sum(pool.left for pool in self.pools),
            "actors": sum(pool.workers.actors for pool in self.pools),
            "idle_s": self.idle_s,
            "wall_s": time.monotonic() - self.started_s,
        }

    def run(self, grow: Callable[[], Graph], watcher: Watcher) -> list[JobReport]:
        """As `Executor.run`."""
        schedule, book, training = Schedule(grow), Book(watcher, self.words), _Training(self.workers[TRAIN])
        silent_s = time.monotonic()
        while True:
            watcher.opened(schedule.num_open())
            if training.job is None and (found := schedule.pop((TRAIN,))) is not None:
                training.take(found)
            self._fill(schedule, training)
            if training.waits and self._has_room(training):
                training.start(self.trainer, watcher)
            if training.job is None and not any(pool.units(schedule) for pool in self.pools):
                break
            silent_s = silent_s if self._is_silent(training) else time.monotonic()
            self._refuse_silence(time.monotonic() - silent_s)
            for what, row in self._collect(training):
                book.settle(schedule, what, row)
            if training.is_over:
                training.end(schedule, book)
        reports = book.close()
        if any(report.damaged or report.error for report in reports):
            self.close()  # actors may have mapped what is damaged, and would read it again from there
        return reports

    def _train_alone(
        self,
        function: TrainFunction,
        task: Any,
        store: Store,
        folder: str,
        lost: int | None = None,
        stop: int | None = None,
    ) -> None:
        """Trains what is no job of a graph; actors that wait for one end, since they hold what it may need."""
        self.close()
        self.trainer(function, task, store, folder, lost, stop)

    def close(self) -> None:
        """Ends all actors; what is run later starts others."""
        for pool in self.pools:
            pool.close()

    def _fill(self, schedule: Schedule, training: _Training) -> None:
        """Sends what is ready to as many actors as there is room for."""
        left = training.leaves([pool.workers for pool in self.pools])
        for pool, size in zip(self.pools, left, strict=True):
            pool.size = size
            pool.fill(schedule)

    def _has_room(self, training: _Training) -> bool:
        left = training.leaves([pool.workers for pool in self.pools])
        return all(pool.actors <= size for pool, size in zip(self.pools, left, strict=True))

    def _collect(self, training: _Training) -> list[tuple[Sent, Row]]:
        """Waits a little for what is at work; gives the units that have ended."""
        refs = [ref for pool in self.pools for ref in pool.refs()]
        if not refs:
            time.sleep(POLL_S)
            ready: list[ray.ObjectRef] = []
        else:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
            if not ready:
                patience_s = POLL_S if training.job is not None else LOOK_S
                ready, _ = ray.wait(refs, num_returns=1, timeout=patience_s, fetch_local=False)
        now = time.monotonic()
        if self._is_silent(training):
            self.idle_s += now - self.looked_s
        self.looked_s = now
        return [each for pool in self.pools for each in pool.collect(set(ready))]

    def _is_silent(self, training: _Training) -> bool:
        """Whether neither a unit nor a training is at work."""
        return not training.is_at_work and not any(pool.at_work for pool in self.pools)

    def _refuse_silence(self, for_s: float) -> None:
        """Says what is waited for, and ends the run where it does not come."""
        if for_s < TOLD_S:
            self.told = False
            return
        kinds = {(pool.workers.cpus, pool.workers.gpus) for pool in self.pools if pool.is_waiting}
        asked = " and ".join(f"an actor of {cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(kinds))
        if for_s >= SILENCE_S:
            raise StageError(f"nothing has run for {for_s:.0f} s: waiting for {asked}; {what_is_there()}")
        if not self.told:
            log.warning("waiting for %s; %s", asked, what_is_there())
            self.told = True


class _Training:
    """The training of a graph that is next or at work, one at a time, in a thread of the driver."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.job: TrainingJob | None = None
        self._future: Future[None] | None = None
        self._started_s = 0.0

    @property
    def waits(self) -> bool:
        """Whether it has not begun: the pools must make room first, or Ray Train would wait for ever."""
        return self.job is not None and self._future is None

    @property
    def is_at_work(self) -> bool:
        """Whether it trains."""
        return self._future is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future is not None and self._future.done()

    def take(self, found: tuple[Job, str]) -> None:
        """The next one."""
        job, _ = found
        if not isinstance(job, TrainingJob):
            raise TypeError(f"{job.stage} is no training, but asks for pool {TRAIN}")
        self.job = job

    def leaves(self, pools: Sequence[Workers]) -> list[int]:
        """How many actors each pool may keep meanwhile; between nodes none before it has its place."""
        if self.job is None:
            return [workers.actors for workers in pools]
        nodes = node_sizes()
        if len(nodes) > 1 and not is_placed(self.workers):
            return [0] * len(pools)
        return beside(self.workers, pools, nodes)

    def start(self, trainer: Trainer, watcher: Watcher) -> None:
        """Begins."""
        job, self._started_s = self.job, time.monotonic()
        if job is not None:
            self._future = in_thread(partial(job.train, trainer, watcher.meter(job.title, job.epochs)))

    def end(self, schedule: Schedule, book: Book) -> None:
        """Takes down what became of it."""
        if self.job is None or self._future is None:
            raise RuntimeError("no training has ended")
        job, error = self.job, self._future.exception()
        self.job = self._future = None
        book.trained(schedule, job, error, self._started_s)
