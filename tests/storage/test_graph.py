"""A schedule hands out each missing unit once, never before what it reads is there, whatever is there already."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.errors import DamagedFile
from rayclean.storage.executor import Inline, JobReport, Watcher
from rayclean.storage.graph import Graph, Missing, Schedule, Unnamed
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult

POOLS = ("cpu",)


@dataclass(frozen=True)
class Counted(Job):
    """So many units; which are there is told to it."""

    stage: ClassVar[str] = "counted"
    suffix: ClassVar[str] = ".json"
    num: int
    there: frozenset[int] = frozenset()

    def units(self) -> Sequence[str]:
        return [str(i) for i in range(self.num)]

    def missing(self) -> list[str]:
        return [str(i) for i in range(self.num) if i not in self.there]

    def open(self) -> Callable[[str], UnitResult]:
        raise NotImplementedError


@dataclass(frozen=True)
class Listing(Counted):
    """Its units can be listed only when what it reads is there."""

    lists_inputs: ClassVar[bool] = True


STORE = Store("unused")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of which some units are there since an earlier start."""
    jobs: list[Job] = []
    for i in range(draw(st.integers(1, 8))):
        after = tuple(draw(st.lists(st.sampled_from(jobs), max_size=3, unique_by=id))) if jobs else ()
        num = draw(st.integers(0, 4))
        there = frozenset(draw(st.sets(st.integers(0, max(num - 1, 0)), max_size=num)))
        kind = draw(st.sampled_from([Counted, Listing]))
        jobs.append(kind(STORE, f"job-{i}", num, there, after=after))
    graph = Graph()
    graph.want(*draw(st.lists(st.sampled_from(jobs), min_size=1, unique_by=id)))
    return graph


@given(graphs(), st.integers(0, 2**32))
def test_each_unit_comes_once_and_never_before_what_it_reads(graph: Graph, seed: int) -> None:
    wanted, rng = graph.wanted(Missing()), random.Random(seed)
    schedule = Schedule(lambda: graph)
    at_work: list[tuple[Job, str]] = []
    begun: list[tuple[tuple[str, str], str]] = []
    ended: dict[tuple[str, str], set[str]] = {key: set() for key in wanted}
    while True:
        found = schedule.pop(POOLS) if rng.random() < 0.6 or not at_work else None
        if found is not None:
            job, unit = found
            for before in job.after:
                if before.key in wanted:
                    assert ended[before.key] == set(before.missing()), "it began before what it reads"
            begun.append((job.key, unit))
            at_work.append(found)
        elif at_work:
            job, unit = at_work.pop(rng.randrange(len(at_work)))
            ended[job.key].add(unit)
            schedule.done(job)
        else:
            break
    assert sorted(begun) == sorted((key, unit) for key, job in wanted.items() for unit in job.missing())


@given(graphs())
def test_what_reads_a_failed_unit_never_begins_and_all_else_does(graph: Graph) -> None:
    wanted, failed = graph.wanted(Missing()), set[tuple[str, str]]()
    schedule = Schedule(lambda: graph)
    begun = set()
    while found := schedule.pop(POOLS):
        job, _ = found
        begun.add(job.key)
        if job.folder == "job-0":
            failed.add(job.key)
            schedule.fail(job)
        else:
            schedule.done(job)

    def hangs_on_it(job: Job) -> bool:
        return any(before.key in failed or hangs_on_it(before) for before in job.after if before.key in wanted)

    for key, job in wanted.items():
        assert (key in begun) == (bool(job.missing()) and not hangs_on_it(job))


def test_what_nothing_wants_any_more_is_left_alone() -> None:
    first = Counted(STORE, "first", 2)
    done = Counted(STORE, "done", 2, frozenset({0, 1}), after=(first,))
    graph = Graph()
    graph.want(done)
    assert Schedule(lambda: graph).pop(POOLS) is None


def test_the_longest_chain_comes_first_and_then_the_job_that_is_open() -> None:
    short, chain = Counted(STORE, "short", 1), Counted(STORE, "chain", 1)
    alike = [Counted(STORE, f"alike-{i}", 2) for i in range(2)]
    graph = Graph()
    graph.want(short, Counted(STORE, "end", 1, after=(chain,)), *alike)
    schedule = Schedule(lambda: graph)
    found = [schedule.pop(POOLS), schedule.pop(POOLS, {alike[1].key}), schedule.pop(POOLS)]
    assert [each and each[0].folder for each in found] == ["chain", "alike-1", "short"]


def test_a_graph_grows_when_what_names_the_rest_is_done() -> None:
    first, second = Counted(STORE, "first", 2), Counted(STORE, "second", 1)
    done: set[str] = set()

    def grow() -> Graph:
        graph = Graph()
        graph.want(first)
        if len(done) < 2:
            graph.unnamed.append(Unnamed("counted", "after first"))
        else:
            graph.want(second)
        return graph

    schedule = Schedule(grow)
    for _ in range(2):
        found = schedule.pop(POOLS)
        assert found is not None
        done.add(found[1])
        schedule.done(found[0])
    found = schedule.pop(POOLS)
    assert found is not None
    assert found[0].folder == "second"


def test_a_part_of_a_graph_is_a_stage_and_what_leads_to_it() -> None:
    @dataclass(frozen=True)
    class Other(Counted):
        stage: ClassVar[str] = "other"

    first = Counted(STORE, "first", 1)
    middle = Other(STORE, "middle", 1, after=(first,))
    graph = Graph()
    graph.want(Counted(STORE, "last", 1, after=(middle,)))
    assert [job.folder for job in graph.up_to("other").jobs.values()] == ["first", "middle"]
    graph.unnamed.append(Unnamed("later", "after last"))
    assert graph.up_to("later").targets == graph.targets, "what names it must be done first"


@dataclass(frozen=True)
class Real(Job):
    """Units that are published; `bad` ones raise."""

    stage: ClassVar[str] = "real"
    suffix: ClassVar[str] = ".json"
    names: tuple[str, ...]

    def units(self) -> Sequence[str]:
        return self.names

    def open(self) -> Callable[[str], UnitResult]:
        def compute(unit: str) -> UnitResult:
            if unit == "damaged":
                raise DamagedFile(self.store.full("x"), "half of it is missing")
            if unit == "bad":
                raise ValueError("bad unit")
            return UnitResult([unit], rows=2, facts={"n": 1})

        return compute


def test_in_this_process_all_that_can_be_done_is_done_and_told(tmp_path: Path) -> None:
    class Told(Watcher):
        def __init__(self) -> None:
            self.reports: list[JobReport] = []

        def ended(self, report: JobReport) -> None:
            self.reports.append(report)

    store, told = Store(str(tmp_path)), Told()
    broken = Real(store, "real-1", ("0", "bad", "damaged", "1"))
    reader, other = Real(store, "real-2", ("0",), after=(broken,)), Real(store, "real-3", ("0", "1"))
    graph = Graph()
    graph.want(reader, other)
    reports = {report.job.folder: report for report in Inline().run(lambda: graph, told)}
    assert set(reports) == {"real-1", "real-3"}
    assert reports["real-1"].failed == {
        "bad": "ValueError: bad unit",
        "damaged": f"DamagedFile: {reports['real-1'].failed['damaged'].partition(': ')[2]}",
    }
    assert list(reports["real-1"].damaged) == [store.full("x")]
    assert (reports["real-3"].units, reports["real-3"].rows, reports["real-3"].facts) == (2, 4, {"n": 2})
    assert {report.job.folder for report in told.reports} == {"real-1", "real-3"}
    assert store.exists("real-3/1.json")
    assert not store.exists("real-2/0.json")


@pytest.mark.parametrize("num", [1, 3])
def test_jobs_are_told_apart_by_kind_and_folder(num: int, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one, another = Counted(store, "shared", num), Real(store, "shared", ("x",))
    graph = Graph()
    graph.want(one, another, Counted(store, "shared", num))
    assert len(graph.jobs) == 2


def test_a_training_is_no_unit_of_its_stages_progress() -> None:
    @dataclass(frozen=True)
    class Trains(Counted):
        stage: ClassVar[str] = "train"
        pool: ClassVar[str] = "train"

    graph = Graph()
    graph.want(Trains(STORE, "train-main", 1), Counted(STORE, "other", 3))
    assert Schedule(lambda: graph).num_open() == {"counted": 3}
