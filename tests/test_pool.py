"""Units of several families on one pool: in which order they are sent, and that they run side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.pool import MAX_ITEMS, grouped, run_units
from rayclean.progress import Meter
from rayclean.sizing import Workers
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult

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


@pytest.fixture
def four_cpus(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of one node with four logical CPUs."""
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    options = {"include_dashboard": False, "object_store_memory": 128 * 2**20, "log_to_driver": False}
    ray.init(address="local", num_cpus=4, logging_level="error", **options)
    yield
    ray.shutdown()


@pytest.mark.timeout(300)
def test_the_three_families_overlap(four_cpus: None, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    jobs = [kind(store, kind.stage, 8) for kind in FAMILIES]
    meter = Meter("test", 24, Console(quiet=True))
    reports = run_units(jobs, [job.units() for job in jobs], Workers(4, 1, 0, "cpu"), False, meter)
    assert [report.units for report in reports] == [8, 8, 8]
    spans = {job.stage: job.spans() for job in jobs}
    times = [span for each in spans.values() for span in each]
    wall_s = max(stop for _, stop in times) - min(start for start, _ in times)
    assert wall_s <= sum(stop - start for start, stop in times) / 2
    for name, own in spans.items():
        others = [span for other, each in spans.items() if other != name for span in each]
        assert any(a < stop and start < b for a, b in own for start, stop in others), name
