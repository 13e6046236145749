"""One unbroken run of a few digits, whose bytes all others must reach."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rayclean.shards.write import write_shards
from tools.faults.doors import Watch
from tools.faults.driver import started
from tools.faults.run_folder import NUM_BAD, NUM_GOOD, NUM_SHARDS, RUN_TIMEOUT_S, Finished, RunFolder, finish
from tools.faults.runs import digit_samples, write_config


@pytest.fixture(scope="session")
def env() -> Iterator[dict[str, str]]:
    """The environment of drivers: no GPU, no cluster, threads by Ray; Ray's own files in a folder that goes away."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
    # Ray's sockets lie below it, and the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield {**kept, "CUDA_VISIBLE_DEVICES": "", "RAY_TMPDIR": folder, "HOME": f"{folder}/home"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has not started: four shards, blocks so small that each stage has several units."""
    folder = tmp_path_factory.mktemp("digits")
    write_shards(str(folder / "shards"), "digits", digit_samples(), -(-(NUM_GOOD + NUM_BAD) // NUM_SHARDS))
    config = write_config(folder, shards=f"{folder}/shards/*.tar", truth="json:truth")
    return RunFolder(config, folder / "run")


@dataclass(frozen=True)
class Watched:
    """The unbroken run, with what came of knocking at its ports meanwhile."""

    finished: Finished
    watch: Watch
    logs: Path


@pytest.fixture(scope="session")
def watched(digits: RunFolder, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The unbroken run, at whose ports somebody without the token tries everything."""
    logs = tmp_path_factory.mktemp("reference")
    with started(digits.command(), env, logs) as driver, Watch(driver.living) as watch:
        ended = driver.wait(RUN_TIMEOUT_S)
    return Watched(Finished(digits, ended), watch, logs)


@pytest.fixture(scope="session")
def reference(watched: Watched) -> Finished:
    """The unbroken run. Only to be read."""
    ended = watched.finished.ended
    assert ended.code == 0, ended.err
    return watched.finished


@pytest.fixture(scope="session")
def until_catalog(digits: RunFolder, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of the same config that was told to stop after the catalog. Only to be read."""
    run = RunFolder(digits.config, tmp_path_factory.mktemp("until") / "run")
    return Finished(run, finish(run, env, tmp_path_factory.mktemp("log"), "--until", "catalog"))
