"""A job on shards behind signed URLs: the table is that of the files, and nobody writes a word of the URLs down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signed_urls import TELLTALE, VARIABLE, signing
from tools.faults.driver import BIN, labels, started
from tools.faults.run_folder import RUN_TIMEOUT_S, Finished

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
LOOPBACK = "127.0.0.1"  # in Ray's files for reasons of its own


def _files_with(word: str, folder: Path) -> list[Path]:
    """Files that hold a word. Of Ray's, sockets are none, and some go away while they are looked at."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and word.encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def urls(reference: Finished) -> Iterator[str]:
    with signing(Path(str(reference.run.load().data.shards)).parent) as signed:
        yield signed()


def test_a_job_by_signed_urls_writes_them_nowhere(
    reference: Finished, urls: str, env: dict[str, str], tmp_path: Path
) -> None:
    run, logs = tmp_path / "run", tmp_path / "logs"
    overrides = (f"run.dir={run}", f"data.shards=env:{VARIABLE}")
    command = [str(BIN / "rayclean"), "run", str(reference.run.config), *overrides, "--verbose"]
    with started(command, {**env, VARIABLE: urls}, logs) as driver:
        ended = driver.wait(RUN_TIMEOUT_S)
    assert ended.code == 0, ended.err
    same = [data for name, data in labels(reference.run.path).items() if "/part-" in name]
    assert same
    assert [data for name, data in labels(run).items() if "/part-" in name] == same
    ray = Path(env["RAY_TMPDIR"])
    assert sum(path.is_file() for path in ray.rglob("*")) > 20
    for word in TELLTALE:
        assert not _files_with(word, run), word
        assert word not in ended.out + ended.err
        assert word == LOOPBACK or not _files_with(word, ray), word
