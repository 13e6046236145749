"""The executor on Ray Data (`run.executor: data`): ready units, of whatever jobs, as one dataset per round.

For clusters where Ray Data is what people watch and tune. Each round starts a pool of actors and waits for its last
unit, which is why `actors` is the default.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import ray
import ray.data
from ray._private.state import actors as known_actors
from ray._private.worker import global_worker
from ray.util.annotations import RayDeprecationWarning

from rayclean.cluster.book import Book
from rayclean.cluster.connect import last_line
from rayclean.cluster.nodes import node_sizes
from rayclean.cluster.pool import TRIES, WORKER_DIED, Row, Sent, UnitActor
from rayclean.cluster.sizing import Workers, room
from rayclean.cluster.trainer import in_thread, run_training
from rayclean.errors import StageError
from rayclean.storage.executor import POOLS, JobReport, Trainer, TrainingJob, Watcher
from rayclean.storage.graph import Graph, Schedule
from rayclean.storage.units import TRAIN

WAIT_S = 300  # for the first actors; no resources free is an error, not silence


class Data(AbstractContextManager["Data"]):
    """Computes graphs by datasets of units.

    Args:
        workers: of `cpu`, `gpu` and `train`, settled; the first two are the same where one pool does all.
        mix_allowed: accept units of another environment.
    """

    def __init__(self, workers: Mapping[str, Workers], mix_allowed: bool) -> None:
        self.workers, self.mix_allowed = workers, mix_allowed
        self.train: Trainer = partial(run_training, workers=workers[TRAIN])
        self.words = uuid.uuid4().hex
        self.datasets = 0

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @property
    def facts(self) -> dict[str, float]:
        """How many datasets were made."""
        return {"datasets": self.datasets}

    def run(self, grow: Callable[[], Graph], watcher: Watcher) -> list[JobReport]:
        """As `Executor.run`."""
        schedule, book = Schedule(grow), Book(watcher, self.words)
        one_pool = self.workers["cpu"] is self.workers["gpu"]
        while True:
            watcher.opened(schedule.num_open())
            if (training := schedule.pop((TRAIN,))) is not None:
                self._train(training[0], schedule, book)
                continue
            pools = POOLS if one_pool else (next((pool for pool in POOLS if schedule.num_ready((pool,))), POOLS[0]),)
            ready: list[Sent] = []
            while (found := schedule.pop(pools)) is not None:
                ready.append(Sent(*found))
            if not ready:
                return book.close()
            for what, row in self._compute(ready, self.workers[pools[0]]):
                book.settle(schedule, what, row)

    def _train(self, job: Any, schedule: Schedule, book: Book) -> None:
        if not isinstance(job, TrainingJob):
            raise TypeError(f"{job.stage} is no training, but asks for pool {TRAIN}")
        started_s, meter = time.monotonic(), book.watcher.meter(job.title, job.epochs)
        error = in_thread(partial(job.train, self.train, meter)).exception()
        book.trained(schedule, job, error, started_s)

    def _compute(self, ready: Sequence[Sent], workers: Workers) -> Iterator[tuple[Sent, Row]]:
        """What became of units that were sent as one dataset; those of which nobody told died with their workers."""
        self.datasets += 1
        jobs = list({what.job.key: replace(what.job, after=()) for what in ready}.values())
        place = {job.key: index for index, job in enumerate(jobs)}
        left = {(place[what.job.key], what.unit): what for what in ready}
        items = [{"job": job, "unit": unit} for job, unit in left]
        try:
            for told in _rows(items, (jobs, workers, self.mix_allowed, self.words), workers):
                row = Row(told["rows"], dict(told["facts"]), told["seconds"], told["peak"], told["error"])
                damaged = tuple(told["damaged"])
                yield left.pop((told["job"], told["unit"])), row._replace(damaged=damaged or None)
        finally:
            _end_actors()
        for what in left.values():
            yield what, Row() if what.job.is_done(what.unit) else Row(error=WORKER_DIED)


class DataActor(UnitActor):
    """The same actor, called by Ray Data with one unit per batch."""

    def __init__(self, jobs: Sequence[Any], workers: Workers, mix_allowed: bool, words: str) -> None:
        super().__init__(workers, mix_allowed, words)
        self.keys = [job.key for job in jobs]
        for job in jobs:
            self.take(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Computes the unit of one item."""
        index, unit = int(batch["job"][0]), str(batch["unit"][0])
        row = self.run(self.keys[index], unit)
        told = {"job": index, "unit": unit, "rows": row.rows, "seconds": row.seconds, "peak": row.peak_rss_bytes}
        told |= {"facts": list((row.facts or {}).items()), "error": row.error, "damaged": list(row.damaged or ())}
        return {"told": [told]}


def _rows(items: list[dict[str, Any]], arguments: tuple[Any, ...], workers: Workers) -> Iterator[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a unit whose process died each time is missing; the others go on
    context.wait_for_min_actors_s = WAIT_S
    context.execution_no_progress_timeout_s = -1  # a unit may take longer than Ray Data's 30 minutes
    context.enable_progress_bars = context.print_on_execution_start = False
    most = min(workers.actors, len(items))
    fitting = max(1, room(node_sizes(), workers.cpus, workers.gpus))
    try:
        with warnings.catch_warnings():
            # max_restarts and max_task_retries have no other name in Ray 2.60; without them a unit that kills its
            # process is tried for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                DataActor,
                batch_size=1,
                fn_constructor_args=arguments,
                num_cpus=workers.cpus,
                num_gpus=workers.gpus or None,
                # One unit at an actor: those that wait at one that dies would count its deaths as theirs.
                compute=ray.data.ActorPoolStrategy(
                    min_size=min(most, fitting), max_size=most, max_tasks_in_flight_per_actor=1
                ),
                max_restarts=-1,
                max_task_retries=TRIES - 1,
            )
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            yield from (line["told"] for line in batch.to_pylist())
    except Exception as e:
        raise StageError(f"Ray Data could not run {items[0]['unit']} and others: {last_line(e)}") from e


def _end_actors() -> None:
    """Ends the actors of an execution that is over: Ray 2.60 leaves those that it was just starting anew.

    They would hold their CPUs to the end of the run, and the next pool would wait for these.
    """
    job = ray.get_runtime_context().get_job_id()
    for each in known_actors().values():
        if each["JobID"] == job and DataActor.__name__ in each["ActorClassName"] and each["State"] != "DEAD":
            global_worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(each["ActorID"])), True)
