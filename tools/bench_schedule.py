"""What a driver costs that holds the graph of a very large run; whether an actor's memory stays flat over many jobs.

    .venv/bin/python tools/bench_schedule.py                # 2,000,000 units in 500 jobs, none of them computed
    .venv/bin/python tools/bench_schedule.py --actor 200    # so many jobs, one after the other, through one actor

Units are names alone: no file is written for the first, an empty one for each unit of the second.
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

from rayclean.cluster.actors import Actors
from rayclean.cluster.connect import connect
from rayclean.cluster.sizing import Workers
from rayclean.storage.executor import JobReport, Watcher
from rayclean.storage.graph import Graph, Schedule
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, block_names

CHAINS = 20
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
    options = parser.parse_args(arguments)
    if options.actor:
        through_one_actor(options.actor)
    else:
        drive(options.jobs, options.units)


if __name__ == "__main__":
    main()
