"""What Ctrl-C and SIGTERM leave of a run on Ray, at its work and while it starts."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest

from rayclean.run.grow import STAGES
from rayclean.storage.lease import current
from rayclean.storage.store import Store
from tools.faults.driver import Ended, seen, started, wait_for
from tools.faults.run_folder import PARTS, RUN_TIMEOUT_S, Finished, RunFolder

pytestmark = pytest.mark.timeout(500)

# What the command says by itself as it goes on; all else on stderr is somebody's trace.
SAID = ("run ", "shards: ", "starting Ray", *(f"{stage}: " for stage in STAGES))


def _has_one_word_of_it(ended: Ended, run: RunFolder) -> None:
    """Exit code 130, and one line beside what the command says as it goes on."""
    assert ended.code == 130, ended.err
    lines = [line for line in ended.err.splitlines() if line and not line.startswith(SAID)]
    assert lines == [f"interrupted; go on with: {shlex.join(['rayclean', *run.command()[1:]])}"], ended.err


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("train", signal.SIGINT),
        ("train", signal.SIGTERM),
        pytest.param("paths", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("paths", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_says_how_to_go_on_and_leaves_nothing_running(
    stage: str, number: signal.Signals, until_catalog: Finished, env: dict[str, str], tmp_path: Path
) -> None:
    run = until_catalog.run.copy_without([], tmp_path / "run")
    catalog = seen(run.path, "catalog-*/**/*")
    with started(run.command(), env, tmp_path / "log") as driver:
        wait_for(f"a part of {stage}", lambda: seen(run.path, PARTS[stage]), RUN_TIMEOUT_S)
        driver.process.send_signal(number)
        ended = driver.wait(RUN_TIMEOUT_S)
        wait_for("the end of Ray's processes", lambda: not driver.living(), 10)
    _has_one_word_of_it(ended, run)
    assert seen(run.path, "catalog-*/**/*") == catalog
    assert current(Store(str(run.path))) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_ray_starts_is_no_other(
    number: signal.Signals, digits: RunFolder, env: dict[str, str], tmp_path: Path
) -> None:
    run = RunFolder(digits.config, tmp_path / "run")
    with started(run.command(), env, tmp_path / "log") as driver:
        wait_for("the first process of Ray", lambda: len(driver.living()) > 1, RUN_TIMEOUT_S)
        driver.process.send_signal(number)
        ended = driver.wait(RUN_TIMEOUT_S)
        wait_for("the end of Ray's processes", lambda: not driver.living(), 10)
    _has_one_word_of_it(ended, run)
