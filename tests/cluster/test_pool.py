"""Units on pools of actors: that families run side by side, without barriers, and what is told of what fails."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import ray

from rayclean.cluster import actors, pool
from rayclean.cluster.actors import Actors
from rayclean.cluster.sizing import Workers
from rayclean.errors import StageError
from rayclean.storage.contents import read_json
from rayclean.storage.executor import JobReport, Watcher
from rayclean.storage.graph import Graph
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult
from tests.ray_here import logical_cpus
from tools.faults.driver import wait_for

SLEEP_S = 1.0  # long beside the starts of actors, which come one after the other


@dataclass(frozen=True)
class Sleep(Job):
    """Units that take their time."""

    stage: ClassVar[str] = "sleep"
    suffix: ClassVar[str] = ".json"
    num: int

    def units(self) -> Sequence[str]:
        return [f"{i:03d}" for i in range(self.num)]

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            started_s = time.time()
            time.sleep(SLEEP_S)
            return UnitResult({"span": [started_s, time.time()]}, rows=1)

        return compute

    def spans(self) -> list[tuple[float, float]]:
        return [tuple(read_json(self.store, self.file(unit))["span"]) for unit in self.units()]


class Influence(Sleep):
    stage: ClassVar[str] = "influence"


class Paths(Sleep):
    stage: ClassVar[str] = "paths"


class Simulate(Sleep):
    stage: ClassVar[str] = "simulate"


FAMILIES = (Paths, Influence, Simulate)


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """A cluster of one node with four logical CPUs."""
    with logical_cpus(4):
        yield


def _run(jobs: Sequence[Job], workers: Workers) -> list[JobReport]:
    graph, training = Graph(), Workers(1, 1, 0, "cpu")
    graph.want(*jobs)
    with Actors({"cpu": workers, "gpu": workers, "train": training}, mix_allowed=False) as executor:
        return executor.run(lambda: graph, Watcher())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of waiting."""
    return [record.getMessage() for record in caplog.records if record.name == actors.__name__]


@pytest.mark.timeout(300)
def test_a_pool_that_finds_no_place_says_what_it_waits_for_and_ends_where_none_comes(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(actors, "TOLD_S", 0.5)
    monkeypatch.setattr(actors, "LOOK_S", 0.1)
    there = "an actor of 2 CPUs and 0 GPUs; the cluster's nodes: 1 of 4 CPUs and 0 GPUs; free now: 0 CPUs and 0 GPUs"
    held = ray.util.placement_group([{"CPU": 4}])
    assert held.wait(60)
    jobs = [Paths(Store(str(tmp_path)), "waits", 1)]
    with monkeypatch.context() as patch:
        patch.setattr(actors, "SILENCE_S", 1.5)
        with pytest.raises(StageError, match=re.escape(f"waiting for {there}")):
            _run(jobs, Workers(1, 2, 0, "cpu"))
    assert said(caplog) == [f"waiting for {there}"]
    caplog.clear()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(_run, jobs, Workers(1, 2, 0, "cpu"))
        wait_for("a line", lambda: said(caplog), 60, 0.05)
        ray.util.remove_placement_group(held)
        (report,) = running.result(120)
    assert said(caplog) == [f"waiting for {there}"]
    assert report.units == 1


@pytest.mark.timeout(300)
def test_the_three_families_overlap(four_cpus: None, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    jobs = [kind(store, kind.stage, 8) for kind in FAMILIES]
    reports = _run(jobs, Workers(4, 1, 0, "cpu"))
    assert [report.units for report in reports] == [8, 8, 8]
    spans = {job.stage: job.spans() for job in jobs}
    times = [span for each in spans.values() for span in each]
    wall_s = max(stop for _, stop in times) - min(start for start, _ in times)
    assert wall_s <= sum(stop - start for start, stop in times) / 2
    for name, own in spans.items():
        others = [span for other, each in spans.items() if other != name for span in each]
        assert any(a < stop and start < b for a, b in own for start, stop in others), name


@dataclass(frozen=True)
class Deadly(Sleep):
    """Units whose names are signals, which they send to their own process; `none` is computed."""

    stage: ClassVar[str] = "deadly"
    names: tuple[str, ...] = ()

    def units(self) -> Sequence[str]:
        return self.names

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            if unit != "none":
                os.kill(os.getpid(), getattr(signal, unit))
                time.sleep(60)
            return UnitResult({}, rows=1)

        return compute


@pytest.mark.timeout(300)
def test_a_unit_whose_process_dies_is_told_with_its_signal_and_what_reads_it_never_begins(
    four_cpus: None, tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    job = Deadly(store, "deadly", 0, ("SIGSEGV", "none", "SIGKILL"))
    reader, other = Paths(store, "reader", 1, after=(job,)), Simulate(store, "other", 2)
    reports = {report.job.folder: report for report in _run([reader, other], Workers(4, 1, 0, "cpu"))}
    assert reports["deadly"].failed == {
        "SIGSEGV": "its worker process died each time (SIGSEGV, a fault in native code)",
        "SIGKILL": "its worker process died each time (SIGKILL, out of memory?)",
    }
    assert reports["deadly"].units == 1
    assert "reader" not in reports
    assert reports["other"].units == 2
    # Whoever was being started anew holds no CPU that others need.
    wait_for("the CPUs", lambda: ray.available_resources().get("CPU") == 4, 30, 0.1)


KEPT: list[bytes] = []


@dataclass(frozen=True)
class Keeps(Sleep):
    """Units that never give back their memory."""

    stage: ClassVar[str] = "keeps"

    def open(self) -> Callable[[str], UnitResult]:
        def compute(_: str) -> UnitResult:
            KEPT.append(os.urandom(10 * 2**20))
            return UnitResult({"pid": os.getpid(), "kept": len(KEPT)}, rows=1)

        return compute


@pytest.mark.timeout(300)
def test_an_actor_leaves_when_it_holds_more_than_its_share(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = 350 * 2**20
    monkeypatch.setattr(actors, "memory_share", lambda _: share)
    graph, workers, job = Graph(), Workers(1, 1, 0, "cpu"), Keeps(Store(str(tmp_path)), "keeps", 60)
    graph.want(job)
    with Actors({"cpu": workers, "gpu": workers, "train": workers}, mix_allowed=False) as executor:
        (report,) = executor.run(lambda: graph, Watcher())
        facts = executor.facts
    assert (report.units, report.failed) == (60, {})
    assert facts["actors_left"] >= 1
    assert facts["actors_died"] == 0
    assert facts["actors_started"] == facts["actors_left"] + 1
    told = [read_json(job.store, job.file(unit)) for unit in job.units()]
    assert len({each["pid"] for each in told}) == facts["actors_started"]
    assert max(each["kept"] for each in told) < 60


@dataclass(frozen=True)
class Once(Sleep):
    """Units of which each kills its process the first time."""

    stage: ClassVar[str] = "once"

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            if self.store.create(f"begun/{unit}", b""):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            return UnitResult({}, rows=1)

        return compute


@pytest.mark.timeout(300)
def test_units_of_processes_that_died_are_computed_by_others(four_cpus: None, tmp_path: Path) -> None:
    (report,) = _run([Once(Store(str(tmp_path)), "once", 4)], Workers(2, 1, 0, "cpu"))
    assert (report.units, report.failed) == (4, {})


@pytest.mark.timeout(300)
def test_actors_live_as_long_as_the_run_and_jobs_follow_each_other_without_barriers(
    four_cpus: None, tmp_path: Path
) -> None:
    store, workers = Store(str(tmp_path)), Workers(2, 1, 0, "cpu")
    chains = []
    for chain in range(3):
        first = Influence(store, f"first-{chain}", 2)
        chains.append(Paths(store, f"second-{chain}", 2, after=(first,)))
    graph = Graph()
    graph.want(*chains)
    with Actors({"cpu": workers, "gpu": workers, "train": workers}, mix_allowed=False) as executor:
        executor.run(lambda: graph, Watcher())
        assert executor.facts["actors_started"] == 2
        again = Graph()
        again.want(Simulate(store, "later", 1))
        executor.run(lambda: again, Watcher())
        assert executor.facts["actors_started"] == 2
    for second in chains:
        (before,) = second.after
        assert isinstance(before, Sleep)
        assert max(stop for _, stop in before.spans()) <= min(start for start, _ in second.spans())


@pytest.mark.timeout(300)
def test_workers_that_do_not_start_end_the_run_with_the_cause(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            raise ValueError("no such device")

    monkeypatch.setattr(pool, "UnitActor", Broken)
    with pytest.raises(StageError, match=r"^workers do not start: .*no such device$"):
        _run([Paths(Store(str(tmp_path)), "fails", 1)], Workers(1, 1, 0, "cpu"))
