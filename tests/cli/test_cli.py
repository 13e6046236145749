"""How the command leaves."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayclean import __version__
from rayclean.cli import commands
from rayclean.config import dump_config
from rayclean.errors import ConfigError
from rayclean.run.grow import STAGES
from rayclean.run.run import Run
from rayclean.storage.store import Store
from rayclean.storage.units import ENVIRONMENT_FILE

# What is left to the interpreter's end would abort, as native threads sometimes do there.
ABORTS_AT_THE_END = """
import atexit, os, sys
atexit.register(os.abort)
sys.argv = ["rayclean", *sys.argv[1:]]
from rayclean.cli import main
main()
"""


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ABORTS_AT_THE_END, *arguments], capture_output=True, text=True)


def test_a_crash_at_the_interpreters_end_does_not_change_the_exit_code() -> None:
    ended = _call("--version")
    assert (ended.returncode, ended.stdout) == (0, f"rayclean {__version__}\n")


def test_an_error_is_printed_whole_and_is_exit_code_2() -> None:
    ended = _call("status", "/no/such/run")
    assert ended.returncode == 2
    assert "/no/such/run holds no run" in ended.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert _call("run").returncode == 2


def test_a_reader_that_leaves_early_is_no_error() -> None:
    piped = f"exec 2>&1; {shlex.join([sys.executable, '-c', ABORTS_AT_THE_END])} --help | true"
    assert subprocess.run(["bash", "-c", piped], capture_output=True, text=True).stdout == ""


@pytest.fixture(params=["folder", "url"])
def moved(request: pytest.FixtureRequest, trained: Run, tmp_path: Path) -> Iterator[str]:
    """A finished run that lies elsewhere than where its config says it was made."""
    shutil.copytree(trained.store.path, tmp_path / "run")
    config = yaml.safe_dump(dump_config(trained.config))
    (tmp_path / "run/config.yaml").write_text(config)
    if request.param == "folder":
        yield str(tmp_path / "run")
        return
    store = Store(f"memory://{tmp_path.name}/run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            store.publish(str(path.relative_to(tmp_path / "run")), path.read_bytes())
    shutil.rmtree(tmp_path / "run")
    yield store.root
    store.remove("")


def _invoke(*arguments: str) -> str:
    result = CliRunner().invoke(commands.app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_run_is_looked_at_where_it_lies_by_path_or_url(moved: str, trained: Run) -> None:
    Store(moved).remove("tables/_manifest.json")
    status = json.loads(_invoke("status", moved, "--json"))
    assert (status["done"], [stage["stage"] for stage in status["stages"]]) == (
        True,
        [stage for stage in STAGES if stage not in ("influence", "aum")],
    )
    assert "none yet" in _invoke("show", moved, "k03")  # of the copy, whose table is not whole; the original's is
    assert _invoke("status", moved).splitlines()[0].startswith("catalog      done")


def test_show_errors_and_evaluate_read_a_path_or_url(moved: str, trained: Run) -> None:
    line = json.loads(_invoke("show", moved, "k03", "--json"))
    assert (line["key"], line["table"]["is_current"]) == ("k03", True)
    shown = _invoke("show", moved, "k03", "--shard", line["shard"])
    assert f"'k03' of {line['shard']}" in shown
    assert json.loads(_invoke("errors", moved, "--json"))["data"][0]["reasons"] == {"missing_label": 1}
    assert "'bad': missing_label" in _invoke("errors", moved, "--limit", "1")
    assert json.loads(_invoke("evaluate", moved, "--json"))["rows"] == trained.catalog.num_rows


def test_gc_clears_the_run_that_it_is_given_and_no_other(moved: str, trained: Run) -> None:
    for store in (Store(moved), trained.store):
        for name in ("x", ENVIRONMENT_FILE):
            store.publish(f"paths-00000000/{name}", b"12345")
    try:
        assert "paths-00000000" in _invoke("gc", moved, "--dry-run")
        assert Store(moved).exists("paths-00000000/x")
        assert "0.0 MB in 1 folders and files removed" in _invoke("gc", moved)
        assert not Store(moved).exists("paths-00000000/x")
        assert trained.store.exists("paths-00000000/x")
    finally:
        trained.store.remove("paths-00000000")


@pytest.mark.parametrize("command", [("status",), ("evaluate",), ("show", "k03"), ("errors",), ("gc",)])
@pytest.mark.parametrize(
    "place", ["{folder}", "{folder}/none", "{folder}/file/run", "memory://no/such/run", "nofs://x"]
)
def test_what_is_no_run_is_one_line_and_exit_code_2(
    command: tuple[str, ...],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("-")
    place = place.format(folder=tmp_path)
    monkeypatch.setattr("sys.argv", ["rayclean", command[0], place, *command[1:]])
    assert commands.call() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("rayclean: ")
    assert place in line
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]  # nothing is left there by looking


@pytest.mark.parametrize("text", ["", "- a list", "run: 3", "run: {dir: x}\nnonsense: 1", "{"])
def test_a_config_that_is_none_is_exit_code_2(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["rayclean", "status", str(tmp_path)])
    assert commands.call() == 2
    assert capsys.readouterr().err.startswith(f"rayclean: {tmp_path}")


def test_a_key_that_is_not_there_is_exit_code_2(
    moved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rayclean", "show", moved, "[red]k99:cat:"])
    assert commands.call() == 2
    assert "has no sample '[red]k99:cat:'" in capsys.readouterr().err


def test_a_full_disk_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commands, "app", full)
    assert commands.call() == 1
    assert "No space left on device; make room and run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("status",), ("evaluate",), ("report",), ("export", "--to", "csv", "--out", "x")])
def test_a_run_by_a_url_with_credentials_is_refused(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(commands.app, [command[0], "s3://me:secret@bucket/run", *command[1:]])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("RUN: a URL carries credentials")
    assert "secret" not in str(result.exception)
