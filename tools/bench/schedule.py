"""What a driver costs that holds the graph of a very large run; whether an actor's memory stays flat over many jobs.

    .venv/bin/python tools/bench/schedule.py                # 2,000,000 units in 500 jobs, none of them computed
    .venv/bin/python tools/bench/schedule.py --actor 200    # so many jobs, one after the other, through one actor
    .venv/bin/python tools/bench/schedule.py --busy 4       # eight snapshots' jobs on so many actors: how busy they are

Units are names alone: no file is written for the first, an empty one for each unit of the others. For `--busy` they
sleep, paths' from .1 to 1.5 s, so that more actors than CPUs tell the same; the time counts from the first unit to the
last, as from the end of training to the merge where actors are up, and from the beginning, with their start.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import psutil
import ray

from rayclean.cluster.actors import Actors
from rayclean.cluster.connect import connect
from rayclean.cluster.private_ray import closed
from rayclean.cluster.sizing import Workers
from rayclean.storage.executor import JobReport, Watcher
from rayclean.storage.graph import Graph, Schedule
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_names

CHAINS = 20
SNAPSHOTS = 8
SHORTEST_S, SPREAD_S, UNEVEN = 0.1, 1.4, 7  # the seconds of units: these and the next ones differ by a part of them
BALLAST_BYTES = 20 * 2**20  # of a job that is open: what an actor must let go of


@dataclass(frozen=True)
class Named(Job):
    """Units that are names; the folder is listed once for those that are there."""

    stage: ClassVar[str] = "named"
    suffix: ClassVar[str] = ".json"
    num: int

    def units(self) -> Sequence[str]:
        """So many names."""
        return block_names(self.num, 1)

    def open(self) -> Callable[[str], UnitResult]:
        """Holds some memory, as a network does."""
        held = bytearray(BALLAST_BYTES)
        return lambda unit: UnitResult({"held": len(held)}, rows=1)


@dataclass(frozen=True)
class Sleeping(Named):
    """Units that take so long on average, some of them much longer."""

    mean_s: float

    def open(self) -> Callable[[str], UnitResult]:
        """Opens nothing: units hold nothing in common."""

        def compute(unit: str) -> UnitResult:
            place = (int(unit) * UNEVEN) % self.num / max(self.num - 1, 1)
            spread = SHORTEST_S + SPREAD_S * place**2
            time.sleep(self.mean_s * spread / (SHORTEST_S + SPREAD_S / 3))
            return UnitResult({}, rows=1)

        return compute


def snapshots(store: Store) -> Graph:
    """The jobs of the scores of some snapshots, as a run has them: number of units, and their mean seconds."""
    graph = Graph()
    for index in range(SNAPSHOTS):

        def job(name: str, num: int, mean_s: float, *after: Job, mark: int = index) -> Sleeping:
            return Sleeping(store, f"{name}-{mark:08x}", num, mean_s, after=after)

        embed = job("embed", 8, 0.4)
        index_job = job("neighbors", 4, 0.3, embed)
        pairs = job("pairs", 1, 0.1, index_job)
        paths = job("paths", 24, 0.57, embed, pairs)
        graph.want(job("interpolate", 8, 0.05, paths), job("vote", 4, 0.1, index_job))
    return graph


def busy(num_actors: int) -> None:
    """Computes the scores of some snapshots, and prints the share of the actors' time that units take."""
    workers, started_s = Workers(num_actors, 1, 0, "cpu"), time.monotonic()
    options = {"include_dashboard": False, "object_store_memory": 128 * 2**20, "log_to_driver": False}
    with tempfile.TemporaryDirectory() as folder, closed():
        ray.init(address="local", num_cpus=num_actors, num_gpus=0, logging_level="error", **options)
        graph = snapshots(Store(folder))
        with Actors({"cpu": workers, "gpu": workers, "train": workers}, mix_allowed=False) as executor:
            started_s = time.monotonic()
            reports = executor.run(lambda: graph, Watcher())
        ray.shutdown()
    at_work_s = sum(report.busy_s for report in reports)
    first_s, last_s = min(report.started_s for report in reports), max(report.ended_s for report in reports)
    units = sum(report.units for report in reports)
    since_first, since_start = (at_work_s / num_actors / (last_s - begun_s) for begun_s in (first_s, started_s))
    print(f"{units} units of {SNAPSHOTS} snapshots on {num_actors} actors, {last_s - started_s:.1f} s:", end=" ")
    print(f"at work {since_first:.3f} of the time since the first unit, {since_start:.3f} since the beginning")


def chained(store: Store, num_jobs: int, num_units: int) -> Graph:
    """Jobs in chains, each of which reads the one before it."""
    graph, ends = Graph(), dict[int, Job]()
    for index in range(num_jobs):
        before = ends.get(index % CHAINS)
        after = () if before is None else (before,)
        ends[index % CHAINS] = Named(store, f"named-{index:08x}", num_units, after=after)
    graph.want(*ends.values())
    return graph


def drive(num_jobs: int, num_units: int) -> None:
    """Hands out all units of a graph and takes them back, as an executor does, and prints what it cost."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        graph = chained(Store(folder), num_jobs, num_units)
        before, started_s = process.memory_info().rss, time.perf_counter()
        schedule, count = Schedule(lambda: graph), 0
        while found := schedule.pop(("cpu",)):
            schedule.done(found[0])
            count += 1
        seconds = time.perf_counter() - started_s
    grown = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20
    print(f"{count:,} units in {num_jobs:,} jobs: {count / seconds:,.0f} units/s; the driver grew by {grown:,.0f} MiB")


class Peaks(Watcher):
    """Keeps each job's peak memory."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def ended(self, report: JobReport) -> None:
        """Takes it down."""
        self.bytes.append(report.peak_rss_bytes)


def through_one_actor(num_jobs: int) -> None:
    """Many jobs, one after the other, through one actor: what its memory was after the first tenth and at the end."""
    workers, peaks = Workers(1, 1, 0, "cpu"), Peaks()
    with tempfile.TemporaryDirectory() as folder, connect():
        graph = Graph()
        graph.want(*(Named(Store(folder), f"named-{index:08x}", 3) for index in range(num_jobs)))
        with Actors({"cpu": workers, "gpu": workers, "train": workers}, mix_allowed=False) as executor:
            executor.run(lambda: graph, peaks)
            started = executor.facts["actors_started"]
    tenth = peaks.bytes[num_jobs // 10]
    print(f"{num_jobs} jobs, {started:.0f} actor(s): peak {tenth / 2**20:,.0f} MiB after a tenth of them,", end=" ")
    print(f"{peaks.bytes[-1] / 2**20:,.0f} MiB at the end")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints either."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=500, help="(500)")
    parser.add_argument("--units", type=int, default=4000, help="of each (4000)")
    parser.add_argument("--actor", type=int, metavar="JOBS", help="through one actor of Ray instead")
    parser.add_argument("--busy", type=int, metavar="ACTORS", help="the share of the time that so many are at work")
    options = parser.parse_args(arguments)
    if options.busy:
        busy(options.busy)
    elif options.actor:
        through_one_actor(options.actor)
    else:
        drive(options.jobs, options.units)


if __name__ == "__main__":
    main()
