"""What a user meets when the data or the config is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rayclean.cli import commands
from tests.helpers import sample, write_tar
from tools.faults.driver import started, wait_for
from tools.faults.run_folder import RUN_TIMEOUT_S, Finished, RunFolder, finish

pytestmark = pytest.mark.timeout(500)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.shards={folder}/none-*.tar", "none-*.tar: no file matches; check the path"),
        ("data.shards={folder}/gone/00.tar", "gone/00.tar: no file matches; check the path"),
        ("data.shard=x", "data.shard: unknown field; did you mean 'shards'?"),
        ("train.epochs=0", "train.from"),
    ],
)
def test_what_cannot_be_right_is_one_line_and_exit_code_2(
    override: str,
    expected: str,
    digits: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(digits.config, tmp_path / "run")
    monkeypatch.setattr("sys.argv", run.command(override.format(folder=tmp_path)))
    assert commands.call() == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rayclean: ")
    assert expected in lines[0]
    assert not run.path.exists()  # refused before anything started


def _with_shards(digits: RunFolder, folder: Path) -> RunFolder:
    """A run over shards of its own in a folder."""
    return RunFolder(digits.config, folder / "run", (f"data.shards={folder}/*.tar",))


def test_a_shard_that_is_no_tar_is_named(digits: RunFolder, env: dict[str, str], tmp_path: Path) -> None:
    write_tar(tmp_path / "good.tar", sample("a"))
    (tmp_path / "text.tar").write_text("not a tar " * 200)
    ended = finish(_with_shards(digits, tmp_path), env, tmp_path / "log")
    assert ended.code == 2
    lines = ended.err.strip().splitlines()
    assert [line for line in lines if line.startswith("rayclean: ")] == lines[-1:], ended.err
    assert f"{tmp_path}/text.tar" in lines[-1]
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_shard_that_changes_after_the_start_is_named(digits: RunFolder, env: dict[str, str], tmp_path: Path) -> None:
    write_tar(tmp_path / "shard.tar", sample("a"))
    write_tar(tmp_path / "later.tmp", sample("b") + sample("c"))
    run = _with_shards(digits, tmp_path)
    with started(run.command(), env, tmp_path / "log") as driver:
        wait_for("the start", lambda: next(run.path.glob("catalog-*/sources.parquet"), None), RUN_TIMEOUT_S)
        os.replace(tmp_path / "later.tmp", tmp_path / "shard.tar")
        ended = driver.wait(RUN_TIMEOUT_S)
    assert ended.code == 1
    assert f"{tmp_path}/shard.tar changed while it was read" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_shard_that_is_cut_short_is_exit_code_3(reference: Finished, env: dict[str, str], tmp_path: Path) -> None:
    shards = sorted((reference.run.config.parent / "shards").glob("*.tar"))
    for shard in shards:
        shutil.copy(shard, tmp_path)
    last = tmp_path / shards[-1].name
    os.truncate(last, last.stat().st_size // 2)
    weights = next(reference.run.path.glob("train-main-*/snapshots/epoch-0004.safetensors"))
    run = _with_shards(reference.run, tmp_path)
    ended = finish(run, env, tmp_path / "log", "train.epochs=0", f"train.from={weights}", "scores=[loss, margin]")
    assert ended.code == 3, ended.err
    assert "1 of 4 shards are cut short" in ended.out
    assert (run.path / "tables/_manifest.json").exists()
