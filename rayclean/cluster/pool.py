"""Units on one pool of Ray Data actors: computed and published by the actors, counted here."""

from __future__ import annotations

import json
import logging
import os
import resource
import time
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from rayclean.cluster import last_words
from rayclean.cluster.connect import last_line
from rayclean.cluster.last_words import LastWords
from rayclean.cluster.nodes import fitting, keep_freed_memory, on_each_node, waiting_told
from rayclean.cluster.pool_actors import end_actors, is_pending
from rayclean.cluster.progress import Meter
from rayclean.cluster.sizing import Workers
from rayclean.errors import DamagedFile, StageError
from rayclean.storage.fingerprint import environment_stamp
from rayclean.storage.units import Job, UnitResult, check_environment, compute_and_publish

# A block costs Ray Data about 10 ms and some memory in the driver; past this many items units share one.
MAX_ITEMS = 2000
OPEN_JOBS = 4
WORKER_DIED = "its worker process died each time"
# Three processes try a unit. A node's death is noticed by missing heartbeats only, after up to 20 s, in which its
# units' tries are used up; hence a second round, once the death is known.
MAX_RETRIES = 2
ROUNDS = 2
NODE_DEATH_S = 30
log = logging.getLogger(__name__)


@dataclass
class JobReport:
    """What became of one job's units in this start; `facts` are sums over the units computed now.

    Attributes:
        damaged: by path, files that units met and could not read, and why.
    """

    units: int = 0
    skipped: int = 0
    rows: int = 0
    busy_s: float = 0.0
    peak_rss_bytes: int = 0
    facts: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


class UnitActor:
    """Computes units of any job of a step; opens a job at its first unit and keeps the last few open."""

    def __init__(self, jobs: Sequence[Job], workers: Workers, mix_allowed: bool, pool: str) -> None:
        self.words = LastWords(pool)
        self.jobs = jobs
        self.mix_allowed = mix_allowed
        self.opened: OrderedDict[int, Callable[[str], UnitResult]] = OrderedDict()
        threads = int(os.environ.get("OMP_NUM_THREADS") or workers.threads)
        keep_freed_memory()
        self.stamp = environment_stamp(threads, _device_name(workers.device))

    def _compute(self, index: int) -> Callable[[str], UnitResult]:
        if index not in self.opened:
            job = self.jobs[index]
            check_environment(job.store, job.folder, self.stamp, self.mix_allowed)
            while len(self.opened) >= OPEN_JOBS:
                self.opened.popitem(last=False)
            self.opened[index] = job.open()
        self.opened.move_to_end(index)
        return self.opened[index]

    def _run(self, index: int, unit: str) -> dict[str, Any]:
        started_s = time.monotonic()
        row: dict[str, Any] = {"job": index, "unit": unit, "error": "", "damaged": "", "rows": 0, "facts": "{}"}
        job = self.jobs[index]
        try:
            if not job.is_done(unit):  # a retry of a group whose actor died
                with self.words.doing(job.file(unit)):
                    result = compute_and_publish(job, self._compute(index), unit, self.stamp)
                row |= {"rows": result.rows, "facts": json.dumps(dict(result.facts))}
        except Exception as e:
            row["error"] = f"{type(e).__name__}: {e}"
            row["damaged"] = json.dumps([e.path, e.reason]) if isinstance(e, DamagedFile) else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return row | {"seconds": time.monotonic() - started_s, "peak_rss_bytes": peak}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Computes the units of one item; a row each, whatever becomes of them."""
        rows = [self._run(int(batch["job"][0]), unit) for unit in str(batch["units"][0]).split("\n")]
        return {key: [row[key] for row in rows] for key in rows[0]}


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name())


def grouped(jobs: Sequence[Job], todo: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Items for Ray Data: one unit each, or as many as keep the number of items bounded.

    Jobs of one stage follow each other, so that an actor keeps what it has opened; stages take turns in proportion,
    so that families run side by side and none waits for another.
    """
    size = max(1, -(-_total(todo) // MAX_ITEMS))
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for index, (job, units) in enumerate(zip(jobs, todo, strict=True)):
        by_stage.setdefault(job.stage, []).extend(
            {"job": index, "units": "\n".join(units[start : start + size])} for start in range(0, len(units), size)
        )
    turns = [(place / len(items), item) for items in by_stage.values() for place, item in enumerate(items)]
    return [item for _, item in sorted(turns, key=lambda turn: turn[0])]


def run_units(
    jobs: Sequence[Job], todo: Sequence[Sequence[str]], workers: Workers, mix_allowed: bool, meter: Meter
) -> list[JobReport]:
    """Computes units of several jobs as one dataset on one pool of actors.

    Args:
        jobs: the jobs.
        todo: for each job the units that are missing.
        workers: the pool.
        mix_allowed: accept units of another environment.
        meter: is told of each finished unit.

    Returns:
        One report a job. Only counters travel back: the published files are the truth, so a unit that was
        reported by nobody but whose file is there has not failed.
    """
    reports = [JobReport(failed=dict.fromkeys(units, WORKER_DIED)) for units in todo]
    left, pool = todo, uuid.uuid4().hex
    for attempt in range(ROUNDS):
        if attempt:
            log.warning("%s: %d units were lost with their workers; sending them again", jobs[0].stage, _total(left))
            time.sleep(NODE_DEATH_S)
        try:
            _send(jobs, left, workers, mix_allowed, meter, reports, pool)
        except _PoolError as e:
            if attempt == ROUNDS - 1:
                raise StageError(f"Ray could not run {jobs[0].stage}: {e}") from e
        left = [_lost(job, report) for job, report in zip(jobs, reports, strict=True)]
        if not any(left):
            return reports
        end_actors(UnitActor)
    _explain(jobs, left, reports, pool)
    return reports


class _PoolError(Exception):
    """What Ray Data raised, in one line; not all of it is a RayError."""


def _total(todo: Sequence[Sequence[str]]) -> int:
    return sum(len(units) for units in todo)


def _lost(job: Job, report: JobReport) -> list[str]:
    """Units of which nobody told and no file is there; those with a file have not failed."""
    report.failed = {unit: error for unit, error in report.failed.items() if not job.is_done(unit)}
    return [unit for unit, error in report.failed.items() if error == WORKER_DIED]


def _explain(jobs: Sequence[Job], lost: Sequence[Sequence[str]], reports: Sequence[JobReport], pool: str) -> None:
    """Says of what the worker processes of lost units died."""
    signals: dict[str, set[str]] = {}
    for _, found in on_each_node(last_words.deaths, pool):
        for death in found if isinstance(found, list) else ():
            signals.setdefault(death.at, set()).add(death.signal)
    for job, units, report in zip(jobs, lost, reports, strict=True):
        for unit in units:
            report.failed[unit] = f"{WORKER_DIED} ({last_words.in_words(signals.get(job.file(unit), set()))})"


def _send(
    jobs: Sequence[Job],
    todo: Sequence[Sequence[str]],
    workers: Workers,
    mix_allowed: bool,
    meter: Meter,
    reports: Sequence[JobReport],
    pool: str,
) -> None:
    """Sends units through one pool and notes what comes back."""
    items = grouped(jobs, todo)
    if not items:
        return
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a unit whose process died each time is missing; the others go on
    context.wait_for_min_actors_s = 300  # no resources free: an error, not silence
    context.execution_no_progress_timeout_s = -1  # a unit may take longer than Ray Data's 30 minutes
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    asked = f"an actor of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
    before = meter.done + meter.failed
    with waiting_told(asked, lambda: meter.done + meter.failed == before and is_pending(UnitActor)):
        for row in _rows(items, (list(jobs), workers, mix_allowed, pool)):
            _note(reports[row["job"]], row, meter)


def _rows(items: list[dict[str, Any]], arguments: tuple[Sequence[Job], Workers, bool, str]) -> Iterator[dict[str, Any]]:
    """What the actors tell of each unit.

    Raises:
        _PoolError: Ray Data gave up.
    """
    try:
        with warnings.catch_warnings():
            # max_restarts and max_task_retries have no other name in Ray 2.60; without them a unit that kills its
            # process is tried for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            dataset = _dataset(items, arguments)
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            yield from batch.to_pylist()
    except Exception as e:
        raise _PoolError(last_line(e)) from e


def _dataset(items: list[dict[str, Any]], arguments: tuple[Sequence[Job], Workers, bool, str]) -> ray.data.Dataset:
    workers = arguments[1]
    actors = min(workers.actors, len(items))
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        UnitActor,
        batch_size=1,
        fn_constructor_args=arguments,
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
        # Starts with what fits now and grows when nodes come (back).
        compute=ray.data.ActorPoolStrategy(min_size=min(actors, fitting(workers)), max_size=actors),
        max_restarts=-1,
        max_task_retries=MAX_RETRIES,
    )


def _note(report: JobReport, row: dict[str, Any], meter: Meter) -> None:
    """Adds one finished unit to its job's report."""
    report.busy_s += row["seconds"]
    report.peak_rss_bytes = max(report.peak_rss_bytes, row["peak_rss_bytes"])
    if row["error"]:
        report.failed[row["unit"]] = row["error"]
        report.damaged |= dict([json.loads(row["damaged"])] if row["damaged"] else [])
        meter.advance(0, failed=1)
        return
    report.failed.pop(row["unit"], None)
    report.units += 1
    report.rows += row["rows"]
    facts = json.loads(row["facts"])
    for name, value in facts.items():
        report.facts[name] = report.facts.get(name, 0) + value
    meter.advance(1, rows=row["rows"], bad=int(facts.get("quarantined", 0)))
