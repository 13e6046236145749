"""How far a run is, from its files: counted right, at few requests, with a rate that is that of the last start."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.util.metrics
from rich.console import Console

from rayclean.cluster.metrics import GAUGES, StepMetrics, step_metrics
from rayclean.cluster.progress import Meter
from rayclean.config import Config, dump_config
from rayclean.inspect.status import RATE_FILES, StageStatus, read_status, sampled_distances, units_per_s
from rayclean.report.run_text import print_status
from rayclean.run.failures import note_failures
from rayclean.run.grow import STAGES, grow, stages
from rayclean.run.record import STEPS, record
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.storage.executor import Inline, JobReport, Watcher
from rayclean.storage.graph import Graph
from rayclean.storage.lease import TAKEOVER_S, hold, lease_file
from rayclean.storage.store import Store
from rayclean.train.trajectories import trajectory_name

NOW_S = 1e9

# Of a run with its default scores.
STAGES_HERE = [stage for stage in STAGES if stage not in ("influence", "aum")]


@pytest.fixture
def copied(trained: Run, tmp_path: Path) -> Config:
    """A copy of a finished run, to be changed."""
    shutil.copytree(trained.store.path, tmp_path / "run")
    config = trained.config
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": str(tmp_path / "run")})})


def looked_at(config: Config) -> Run:
    return look(config, Store(config.run.dir))


def stages_of(config: Config, now_s: float | None = None) -> dict[str, StageStatus]:
    return {stage.stage: stage for stage in read_status(config, now_s).stages}


def published_at(store: Store, name: str, seconds: float) -> None:
    os.utime(Path(store.path, name), (seconds, seconds))


def printed(config: Config) -> list[str]:
    console = Console(width=200)
    with console.capture() as captured:
        print_status(console, read_status(config))
    return captured.get().splitlines()


def test_a_finished_run_is_done_in_all_stages(copied: Config) -> None:
    status = read_status(copied)
    assert status.is_done
    assert (status.later, status.driver) == ({}, None)
    assert [stage.stage for stage in status.stages] == STAGES_HERE
    assert all(stage.done == stage.total for stage in status.stages)
    assert [line.split()[0] for line in printed(copied)] == STAGES_HERE
    assert {line.split()[1].rstrip(",") for line in printed(copied)} == {"done"}


def test_units_are_counted_over_all_jobs_that_are_named(copied: Config) -> None:
    this = looked_at(copied)
    walk, vote = this.walks[-1], this.vote(this.voted[0])
    scores = this.interpolate(walk)
    for file in [scores.file(scores.units()[0]), vote.file(vote.units()[-1])]:
        this.store.remove(file)
    status, stages = read_status(copied), stages_of(copied)
    jobs = grow(looked_at(copied)).jobs.values()
    for stage in ("interpolate", "vote"):
        total = sum(len(job.units()) for job in jobs if job.stage == stage)
        assert (stages[stage].done, stages[stage].total) == (total - 1, total)
    assert stages["merge"].is_done
    assert status.later == {}
    assert not status.is_done
    assert status.to_json()["stages"][-1]["stage"] == "merge"


def test_each_folder_is_listed_once_and_few_files_are_looked_at(
    copied: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = looked_at(copied)
    this.store.remove(this.merge()[1].file("part-00001"))
    listed, looked = Counter[str](), Counter[str]()
    plain_list, plain_modified = Store.list, Store.modified_s

    def counted_list(self: Store, folder: str) -> list[str]:
        listed[folder] += 1
        return plain_list(self, folder)

    def counted_modified(self: Store, name: str) -> float:
        looked[name] += 1
        return plain_modified(self, name)

    monkeypatch.setattr(Store, "list", counted_list)
    monkeypatch.setattr(Store, "modified_s", counted_modified)
    read_status(copied)
    assert listed
    assert set(listed.values()) == {1}
    assert looked.total() <= RATE_FILES + 1


@pytest.mark.parametrize("total", [1, 7, RATE_FILES, RATE_FILES + 1, 5000, 10**6])
def test_files_are_sampled_densely_near_the_end_and_up_to_the_begin(total: int) -> None:
    distances = sampled_distances(total)
    assert len(distances) <= RATE_FILES
    assert distances == sorted(set(distances))
    assert (distances[0], distances[-1]) == (1, total)
    steps = np.diff([0, *distances])
    assert (steps <= np.maximum(1, 0.12 * np.array(distances))).all()


class Published(Store):
    """A store of files that were published at these times, and of nothing else."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times, self.asked = times, 0

    def modified_s(self, name: str) -> float:
        self.asked += 1
        return self.times[int(name)]


def schedule(units: int, actors: int, group: int, begin_s: float, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """When each of so many units is published that so many actors take in order, a group at a time, 1 s a unit."""
    rng = np.random.default_rng(seed)
    free = begin_s + rng.random(actors)
    times = np.empty(units)
    for start in range(0, units, group):
        actor = int(free.argmin())
        last = min(start + group, units)
        times[start:last] = free[actor] + np.cumsum(rng.uniform(0.5, 1.5, last - start))
        free[actor] = times[last - 1]
    return times


@pytest.mark.parametrize("actors", [1, 16, 100])
@pytest.mark.parametrize("group", [1, 50])
@pytest.mark.parametrize("before", [0, 3000])
def test_the_rate_is_that_of_the_last_start_for_any_number_of_actors(actors: int, group: int, before: int) -> None:
    # An earlier start, an hour ago, has done `before` units, and the last one is in the middle of the rest.
    start_s = 10_000.0
    times = np.concatenate([schedule(before, 4, 1, start_s - 3600, 0), schedule(12_000, actors, group, start_s, 1)])
    now_s = float(np.quantile(times[before:], 0.4))
    done = [str(unit) for unit in np.flatnonzero(times <= now_s)]
    truth = (len(done) - before) / (now_s - start_s)
    store = Published(times.tolist())
    found = units_per_s(store, done, start_s, now_s)
    assert found == pytest.approx(truth, rel=0.2)
    assert store.asked <= RATE_FILES


def test_few_units_give_the_exact_rate() -> None:
    store = Published([1.0, 50.0, 60.0, 65.0, 70.0])
    files = [str(unit) for unit in range(5)]
    assert units_per_s(store, files, 40.0, None) == pytest.approx(3 / 20)
    assert units_per_s(store, files, 40.0, 100.0) == pytest.approx(3 / 50)  # nothing since: the rate goes down
    assert units_per_s(store, files, 70.0, None) is None
    assert units_per_s(store, files, 71.0, 100.0) is None


def test_the_rate_gives_the_time_left(copied: Config) -> None:
    this = looked_at(copied)
    this.store.publish(CONFIG_FILE, b"")
    for path in Path(this.store.path).rglob("*"):
        published_at(this.store, str(path), NOW_S - 5000)  # by an earlier start
    published_at(this.store, CONFIG_FILE, NOW_S - 1000)
    scores = this.interpolate(this.walks[-1])
    units = scores.units()
    this.store.remove(scores.file(units[-1]))
    assert stages_of(copied)["interpolate"].per_s is None
    for unit, age_s in zip(units[:3], (30, 20, 10), strict=True):
        published_at(this.store, scores.file(unit), NOW_S - age_s)
    stage = stages_of(copied)["interpolate"]
    assert stage.per_s == pytest.approx(0.1)
    assert stage.left_s == pytest.approx(10)
    holder = {"host": "h", "pid": 1, "started": 0, "machine": "m", "token": "t"}
    this.store.publish(lease_file(1), json.dumps(holder).encode())
    published_at(this.store, lease_file(1), NOW_S + 7)
    assert stages_of(copied, NOW_S + 10)["interpolate"].per_s == pytest.approx(2 / 40)  # a driver is at work, slowly


def test_training_is_timed_by_its_epochs(copied: Config) -> None:
    this = looked_at(copied)
    task = this.main.task
    this.store.remove(f"{task.folder}/trained.json")
    this.store.publish(CONFIG_FILE, b"")
    published_at(this.store, CONFIG_FILE, NOW_S - 1000)
    for epoch, age_s in ((1, 5000), (2, 300), (3, 100)):
        published_at(this.store, f"{task.folder}/{trajectory_name(epoch, 0)}", NOW_S - age_s)
    stage = stages_of(copied)["train"]
    assert (stage.done, stage.total, stage.unit) == (2, 3, "epochs")  # that the last one is done is said at the end
    assert stage.per_s == pytest.approx(1 / 200)
    assert stage.left_s == pytest.approx(200)
    this.store.remove(f"{task.folder}/trajectories/epoch-0003")
    this.store.remove(f"{task.folder}/{trajectory_name(2, 1)}")
    assert stages_of(copied)["train"].done == 1  # the second is being written


def test_seconds_are_those_of_all_starts(copied: Config) -> None:
    this = looked_at(copied)
    this.store.remove("record")
    for seconds in (200.0, 100.0):
        record(this.store, STEPS, {"step": "paths", "wall_s": seconds})
    assert stages_of(copied)["paths"].wall_s == 300
    assert "paths        done, 5 min" in printed(copied)


def test_who_holds_the_run_is_told_until_it_is_dead(copied: Config) -> None:
    store = Store(copied.run.dir)
    with hold(store):
        driver = read_status(copied).driver
        assert driver is not None
        assert (driver.pid, driver.is_alive) == (os.getpid(), True)
        assert any(f"process {os.getpid()} on {driver.host}, sign of life" in line for line in printed(copied))
        dead = read_status(copied, time.time() + TAKEOVER_S + 5).driver
        assert dead is not None
        assert not dead.is_alive
        assert dead.heartbeat_age_s == pytest.approx(TAKEOVER_S + 5, abs=10)
    assert read_status(copied).driver is None


def test_failures_are_told_of_a_stage_that_is_not_done(copied: Config) -> None:
    this = looked_at(copied)
    part = this.merge()[1].file("part-00000")
    note_failures(this.store, "merge", {part: "OSError: [Errno 28] No space left", "another": "x"})
    assert stages_of(copied)["merge"].failed == 0  # done by whomever
    this.store.remove(part)
    stage = stages_of(copied)["merge"]
    assert (stage.failed, stage.cause) == (2, "OSError: [Errno 28] No space left")
    assert any("2 failed in the last start, first with: OSError: [Errno 28]" in line for line in printed(copied))
    assert printed(copied)[-1].startswith("driver       none")


def test_a_run_before_its_catalog_is_done_shows_its_shards(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    class FirstShards(Inline):
        def run(self, grow: Callable[[], Graph], watcher: Watcher | None = None) -> list[JobReport]:
            scan = next(iter(grow().jobs.values()))
            for unit in scan.units()[:3]:
                for file in scan.all_files(unit):
                    scan.store.publish(file, b"")
            raise Stopped

    config = tiny_config(tmp_path)
    with pytest.raises(Stopped):
        finish(config, FirstShards())
    status = read_status(config)
    assert [(stage.stage, stage.done, stage.total) for stage in status.stages] == [("catalog", 3, 5)]
    assert list(status.later) == list(stages()[1:])
    assert dump_config(config)["run"]["dir"] == str(tmp_path)


class Recorded:
    """A metric that keeps what it was told."""

    made: dict[str, Recorded]

    def __init__(self, name: str, text: str, keys: tuple[str, ...]) -> None:
        self.name, self.keys, self.value, self.num_sets = name, keys, 0.0, 0
        self.tags: dict[str, str] = {}
        Recorded.made[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> Recorded:
        assert set(tags) == set(self.keys)
        self.tags = tags
        return self

    def set(self, value: float) -> None:
        self.value = value
        self.num_sets += 1

    def inc(self, value: float) -> None:
        assert value > 0
        self.value += value


def test_a_meter_tells_its_counts_to_the_metrics() -> None:
    Recorded.made = {}
    meter = Meter("paths", 10, Console(quiet=True), StepMetrics("paths", "digits", Recorded, Recorded))
    values = {name: metric.value for name, metric in Recorded.made.items()}
    assert values == dict.fromkeys(GAUGES, 0) | {"rayclean_units_total": 10, "rayclean_samples_total": 0}
    meter.advance(2, rows=30, bad=4)
    meter.advance(0, failed=1)
    meter.advance(1, rows=5)
    values = {name: metric.value for name, metric in Recorded.made.items()}
    assert values == {
        "rayclean_units_done": 3,
        "rayclean_units_total": 10,
        "rayclean_samples_total": 35,
        "rayclean_failed_units": 1,
        "rayclean_bad_samples": 4,
    }
    assert all(metric.tags == {"stage": "paths", "run": "digits"} for metric in Recorded.made.values())


def test_gauges_are_told_again_while_a_unit_takes_long() -> None:
    Recorded.made = {}
    metrics = StepMetrics("paths", "digits", Recorded, Recorded)
    metrics.show(3, 10, 30, 1, 2)
    done, samples = Recorded.made["rayclean_units_done"], Recorded.made["rayclean_samples_total"]
    threads = threading.active_count()
    with metrics.refreshed(0.001):
        deadline = time.monotonic() + 30
        while done.num_sets < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert done.num_sets >= 5
    assert (done.value, samples.value) == (3, 30)
    assert threading.active_count() == threads


def test_rays_own_metrics_take_these_names_and_tags() -> None:
    metrics = StepMetrics("paths", "digits", ray.util.metrics.Gauge, ray.util.metrics.Counter)
    metrics.show(1, 2, 3, 4, 5)


def test_without_a_connected_ray_there_are_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert step_metrics("paths", "digits") is None
    monkeypatch.delitem(sys.modules, "ray")
    assert step_metrics("paths", "digits") is None
    assert "ray" not in sys.modules
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    made = SimpleNamespace(Gauge=Recorded, Counter=Recorded)
    monkeypatch.setitem(sys.modules, "ray.util.metrics", made)
    Recorded.made = {}
    assert step_metrics("paths", "digits") is not None
    assert set(Recorded.made) == {*GAUGES, "rayclean_samples_total"}
