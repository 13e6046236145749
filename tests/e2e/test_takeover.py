"""Two drivers of one run in containers of one host, by the command line."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tests.damage import copy_until_read
from tools.faults.driver import labels, started, wait_for
from tools.faults.run_folder import RUN_TIMEOUT_S, Finished, RunFolder, finish

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
CONTAINER = ("unshare", "-Urpf", "--mount-proc")


@pytest.fixture
def container() -> tuple[str, ...]:
    if not shutil.which("unshare") or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode:
        pytest.skip("pid namespaces cannot be made here")
    return CONTAINER


def test_the_table_is_that_of_the_driver_that_took_over(
    reference: Finished, env: dict[str, str], container: tuple[str, ...], tmp_path: Path
) -> None:
    run = RunFolder(reference.run.config, tmp_path / "run")
    copy_until_read(reference.run.path, "train-H/", run.path)  # from the embedding on it is left to do
    other = RunFolder(run.config, run.path, ("merge.threshold=0.25", "merge.score=iofm"))
    with started([*container, *run.command()], env, tmp_path / "old") as old:
        wait_for("the first embedding", lambda: list(run.path.glob("embed-*/*.safetensors")), RUN_TIMEOUT_S)
        (driver,) = psutil.Process(old.process.pid).children()
        driver.send_signal(signal.SIGSTOP)
        new = finish(other, env, tmp_path / "new")  # waits for a sign of life first
        assert new.code == 0, new.err
        assert "no heartbeat for" in new.err
        table = labels(run.path)
        driver.send_signal(signal.SIGCONT)
        ended = old.wait(RUN_TIMEOUT_S)
    assert ended.code == 2, ended.err
    assert "took this run over" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert labels(run.path) == table
    published = Published.open(Store(str(run.path)))
    assert published.is_whole()
    assert (published.lease, published.summary()["merge_score"]) == (3, "iofm")
    assert "score: iofm" in (run.path / "config.yaml").read_text()
