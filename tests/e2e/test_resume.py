"""Whatever is killed, whenever: the same command ends with the same bytes and does no finished unit again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
from _pytest.mark import ParameterSet

from rayclean.run.start import look
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import ENVIRONMENT_FILE, compute_and_publish
from tools.faults.driver import COMPUTING_ACTOR, TRAINING_WORKER, Driver, labels, seen, started, wait_for
from tools.faults.run_folder import PARTS, RUN_TIMEOUT_S, Finished, RunFolder, finish

pytestmark = pytest.mark.timeout(900)

WORKERS = {"train": TRAINING_WORKER}
FAST = (("paths", "driver"), ("paths", "worker"), ("train", "worker"))


def _cases() -> list[ParameterSet]:
    cases = [(stage, victim) for stage in PARTS for victim in ("driver", "worker")]
    return [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow) for case in cases]


def _copy_until(stage: str, run: RunFolder, path: Path) -> RunFolder:
    """A copy of a finished run as a run that stands before the stage.

    After training the rest stays: with equal weights it fits, by its fingerprints; others would lead elsewhere.
    """
    return run.copy_without(["train", "merge"], path) if stage == "train" else run.copy_until(stage, path)


def _kill_within(stage: str, victim: str, driver: Driver, run: RunFolder) -> None:
    """Kills the driver or a worker of its own once a part of the stage is there."""
    wait_for(f"a part of {stage}", lambda: next(run.path.glob(PARTS[stage]), None), RUN_TIMEOUT_S)
    if victim == "driver":
        driver.kill()
        return

    def worker() -> psutil.Process | None:
        assert driver.process.poll() is None, "the run ended before its worker was found"
        return driver.find(WORKERS.get(stage, COMPUTING_ACTOR))

    wait_for(f"a worker of {stage}", worker, 60).kill()


@pytest.mark.parametrize(("stage", "victim"), _cases())
def test_a_killed_run_ends_with_the_same_bytes(
    stage: str, victim: str, reference: Finished, env: dict[str, str], tmp_path: Path
) -> None:
    run = _copy_until(stage, reference.run, tmp_path / "run")
    all_parts = len(list(reference.run.path.glob(PARTS[stage])))
    with started(run.command(), env, tmp_path / "first") as driver:
        _kill_within(stage, victim, driver, run)
        done = seen(run.path, PARTS[stage])
        assert 0 < len(done) < all_parts
        # The rerun starts at once, while workers of a killed driver may still be at work.
        ended = driver.wait(RUN_TIMEOUT_S) if victim == "worker" else finish(run, env, tmp_path / "second")
    assert ended.code == 0, ended.err
    assert labels(run.path) == labels(reference.run.path)
    if stage != "train":  # an epoch whose checkpoint is not registered yet is trained again
        after = seen(run.path, PARTS[stage])
        assert {name: after[name] for name in done} == done


@pytest.mark.slow
def test_a_run_killed_while_one_role_is_scored_and_another_trains(
    reference: Finished, env: dict[str, str], tmp_path: Path
) -> None:
    more = ("resources.train.cpus=1", "scores=[loss, iofm, vote, loss_ce]", "train.roles.ce.epochs=40")
    run, whole = (RunFolder(reference.run.config, tmp_path / name, more) for name in ("run", "whole"))
    with started(run.command(), env, tmp_path / "first") as driver:
        wait_for("paths", lambda: next(run.path.glob(PARTS["paths"]), None), RUN_TIMEOUT_S)
        driver.kill()
    assert list(run.path.glob("train-ce-*/workers.json"))
    assert not list(run.path.glob("train-ce-*/trained.json"))
    done = seen(run.path, PARTS["paths"])
    for each in (run, whole):
        ended = finish(each, env, tmp_path / f"logs of {each.path.name}")
        assert ended.code == 0, ended.err
    after = seen(run.path, PARTS["paths"])
    assert {name: after[name] for name in done} == done
    assert labels(run.path) == labels(whole.path)


def test_a_leftover_worker_publishes_the_same_bytes(reference: Finished, one_thread: None, tmp_path: Path) -> None:
    shutil.copytree(reference.run.path, tmp_path / "run")
    run = look(RunFolder(reference.run.config, tmp_path / "run").load(), Store(str(tmp_path / "run")))
    for job in (run.main.embed(run.main.trained.snapshots[-1]), run.paths(run.walks[-1]), run.merge()[1]):
        unit = job.units()[-1]
        before = job.store.read(job.file(unit))
        job.store.publish(job.file(unit), b"")  # what follows must write
        stamp = json.dumps(read_json(job.store, f"{job.folder}/{ENVIRONMENT_FILE}"), sort_keys=True)
        compute_and_publish(job, job.open(), unit, stamp)
        assert job.store.read(job.file(unit)) == before
        assert json.loads(stamp)["threads"] == 1
