"""Units on a pool: in which order they are sent, that families run side by side, and what is told of what fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import ray.data
from hypothesis import given
from hypothesis import strategies as st
from ray.data.exceptions import ExecutionTimeoutError
from rich.console import Console

from rayclean.cluster import nodes, pool
from rayclean.cluster.pool import MAX_ITEMS, JobReport, grouped, run_units
from rayclean.cluster.progress import Meter
from rayclean.cluster.sizing import Workers
from rayclean.errors import StageError
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult
from tests.e2e.driver import wait_for
from tests.ray_here import logical_cpus

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


@given(st.lists(st.tuples(st.sampled_from(FAMILIES), st.integers(0, 40)), min_size=1, max_size=6))
def test_every_unit_is_sent_once_and_stages_take_turns(wanted: list[tuple[type[Sleep], int]]) -> None:
    store = Store("unused")
    jobs = [kind(store, f"job-{i}", num) for i, (kind, num) in enumerate(wanted)]
    todo = [list(job.units()) for job in jobs]
    items = grouped(jobs, todo)
    sent = [(item["job"], unit) for item in items for unit in item["units"].split("\n")]
    assert sorted(sent) == [(i, unit) for i, units in enumerate(todo) for unit in units]
    for kind in {type(job) for job in jobs}:
        own = [(i, unit) for i, unit in sent if type(jobs[i]) is kind]
        assert own == sorted(own)  # an actor keeps what it has opened
        share = len(own) / max(len(sent), 1)
        for place in range(len(sent) + 1):  # no stage waits for another
            of_kind = sum(type(jobs[i]) is kind for i, _ in sent[:place])
            assert abs(of_kind - share * place) <= len(FAMILIES)


def test_many_units_share_items() -> None:
    job = Paths(Store("unused"), "job", 3 * MAX_ITEMS + 1)
    items = grouped([job], [job.units()])
    assert len(items) <= MAX_ITEMS
    assert "\n".join(item["units"] for item in items).split("\n") == job.units()


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """A cluster of one node with four logical CPUs."""
    with logical_cpus(4):
        yield


def _run(jobs: Sequence[Job], workers: Workers) -> list[JobReport]:
    meter = Meter("test", sum(len(job.units()) for job in jobs), Console(quiet=True))
    return run_units(jobs, [job.units() for job in jobs], workers, False, meter)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of waiting."""
    return [record.getMessage() for record in caplog.records if record.name == nodes.__name__]


@pytest.mark.timeout(300)
def test_a_pool_that_finds_no_place_says_what_it_waits_for(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "WAIT_TOLD_S", 0.5)
    held = ray.util.placement_group([{"CPU": 4}])
    assert held.wait(60)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(_run, [Paths(Store(str(tmp_path)), "waits", 1)], Workers(1, 2, 0, "cpu"))
        wait_for("a line", lambda: said(caplog), 60, 0.05)
        ray.util.remove_placement_group(held)
        (report,) = running.result(120)
    assert said(caplog) == [
        "waiting for an actor of 2 CPUs and 0 GPUs; the cluster's nodes: 1 of 4 CPUs and 0 GPUs; free now: 0 CPUs and "
        "0 GPUs"
    ]
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
def test_a_unit_whose_process_dies_is_told_with_its_signal(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ROUNDS": 1, "MAX_RETRIES": 1}.items():  # two deaths each; Ray Data takes 0 for endless
        monkeypatch.setattr(pool, name, value)
    job = Deadly(Store(str(tmp_path)), "deadly", 0, ("SIGSEGV", "none", "SIGKILL"))
    (report,) = _run([job], Workers(4, 1, 0, "cpu"))
    assert report.failed == {
        "SIGSEGV": "its worker process died each time (SIGSEGV, a fault in native code)",
        "SIGKILL": "its worker process died each time (SIGKILL, out of memory?)",
    }
    assert report.units == 1
    # Whoever was being started anew holds no CPU that the next pool needs.
    wait_for("the CPUs", lambda: ray.available_resources().get("CPU") == 4, 30, 0.1)


@pytest.mark.timeout(300)
def test_a_unit_may_take_longer_than_ray_data_waits_for_progress(
    four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 0.2)
    (report,) = _run([Paths(Store(str(tmp_path)), "slow", 1)], Workers(1, 1, 0, "cpu"))
    assert (report.units, report.failed) == (1, {})


@pytest.mark.parametrize("error", [ExecutionTimeoutError("first\nit took too long"), ValueError("it took too long")])
def test_what_ray_data_raises_is_one_line(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: Any) -> None:
        raise error

    monkeypatch.setattr(pool, "_dataset", give_up)
    monkeypatch.setattr(pool, "NODE_DEATH_S", 0)
    with pytest.raises(StageError, match=r"^Ray could not run paths: it took too long$"):
        _run([Paths(Store(str(tmp_path)), "fails", 1)], Workers(1, 1, 0, "cpu"))
