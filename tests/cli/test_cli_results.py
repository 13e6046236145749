"""The commands that use what a run has found: their help, how they leave, and what they take over the run's config."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rayclean.cli import commands
from rayclean.cluster import connect
from rayclean.config import Config, dump_config
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS
from rayclean.config.registry import Registry
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.learn.methods import METHODS
from rayclean.run.run import Run
from tests.export.runs import edited

EXPORT = ("export", "--out", "{folder}/out")
COMMANDS = [("learn",), ("report",), ("review",), (*EXPORT, "--to", "csv")]
OPTIONS = {
    "learn": "--method --json --verbose",
    "report": "--out --top",
    "review": "--port --reviewer --sample --csv",
    "export": "--to --out --cut --budget --precision --labels --sure --removed --limit --json --verbose",
}


@pytest.fixture
def started(tiny_config: Callable[..., Config], tmp_path: Path) -> Path:
    """A run that was started and has made nothing yet."""
    config = tiny_config(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(dump_config(config)))
    return tmp_path / "run"


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`leaves(argument, ...)`: the command leaves by exit code 2; what it says. No cluster may be asked for."""

    def no_cluster(*_: object) -> None:
        raise AssertionError("a mistake of the command line needs no cluster")

    monkeypatch.setattr(connect, "connect", no_cluster)

    def do(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["rayclean", *map(str, arguments)])
        assert commands.call() == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    return do


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    assert line.startswith("rayclean: ")
    return line


def command_on(run: object, command: tuple[str, ...], folder: Path) -> list[str]:
    name, *options = (each.replace("{folder}", str(folder)) for each in command)
    return [name, str(run), *options]


def help_of(command: str) -> str:
    result = CliRunner().invoke(
        commands.app, [command, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("command", "options"), OPTIONS.items())
def test_help_names_what_a_command_does_and_takes(command: str, options: str) -> None:
    (known,) = (each for each in commands.app.registered_commands if getattr(each.callback, "__name__", "") == command)
    shown = help_of(command)
    assert (known.callback.__doc__ or "-").splitlines()[0].rstrip(".") in shown
    assert all(option in shown for option in ["RUN", *options.split()])


@pytest.mark.parametrize(
    ("command", "registry"),
    [("learn", METHODS), ("export", EXPORT_KINDS), ("run", NOISE_KINDS), ("run", IMBALANCES)],
)
def test_the_help_says_what_every_entry_means(command: str, registry: Registry[Any]) -> None:
    _, _, shown = help_of(command).partition(registry.field)
    assert all(entry.name in shown and entry.meaning in shown for entry in registry)


def test_a_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from rayclean.cli import commands\n"
        "for name in ('run', 'learn', 'export'):\n"
        "    assert CliRunner().invoke(commands.app, [name, '--help']).exit_code == 0\n"
        "print(*sorted({'torch', 'ray', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split() == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["{folder}", "{folder}/none", "{folder}/file/run", "memory://no/such/run"])
def test_what_is_no_run_is_one_line(
    command: tuple[str, ...], place: str, leaves: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("-")
    place = place.format(folder=tmp_path)
    assert place in one_line(leaves(*command_on(place, command, tmp_path)))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]  # nothing is left there by looking


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("learn", "--method", "nonsense"), "--method nonsense: no such method; there are plain, retrain, odd,"),
        (("learn", "learn.nonsense=1"), "learn.nonsense"),
        (("learn", "nonsense"), "'nonsense' is not an override; write section.field=value"),
        (("learn", "learn.retrain.cut=2"), "learn.retrain.cut"),
        (("learn", "learn.train={epochs: none}"), "epochs"),
        ((*EXPORT, "--to", "nonsense"), "--to nonsense: no such export; there are csv, parquet, cleanlab,"),
        ((*EXPORT, "--to", "csv", "--cut", "0.5", "--budget", "3"), "--cut and --budget contradict each other"),
        ((*EXPORT, "--to", "csv", "--cut", "1.5"), "--cut 1.5: expected a probability"),
        ((*EXPORT, "--to", "csv", "--limit", "3"), "--limit is for --to fiftyone and labelstudio"),
        ((*EXPORT, "--to", "csv", "--labels", "nonsense"), "--labels nonsense: expected one of given,"),
        ((*EXPORT, "--to", "csv", "--sure", "0.5"), "--sure is for --labels predicted"),
        (("report", "--top", "0"), "a report of 0 samples: expected at least 1"),
    ],
)
def test_a_wrong_wish_is_one_line_and_nothing_is_written(
    command: tuple[str, ...], said: str, started: Path, leaves: Callable[..., str], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert said in one_line(leaves(*command_on(started, command, tmp_path)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_run_that_has_made_nothing_is_told_so_and_nothing_is_written(
    command: tuple[str, ...], started: Path, leaves: Callable[..., str], tmp_path: Path
) -> None:
    *before, line = leaves(*command_on(started, command, tmp_path)).splitlines()
    assert line.startswith(f"rayclean: {started} holds no ")
    assert before == ([f"reading the table of {started}"] if command == ("review",) else [])
    assert not (tmp_path / "out").exists()
    assert not (started / "report").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("export", "--to", "csv"), "--out"),
        (("export", "--out", "{folder}/out"), "--to"),
        (("review", "--port", "65536"), "--port"),
        (("review", "--port", "-1"), "--port"),
        (("report", "--top", "many"), "--top"),
        (("learn", "--nonsense"), "--nonsense"),
    ],
)
def test_wrong_usage_names_the_option(
    command: tuple[str, ...], option: str, started: Path, leaves: Callable[..., str], tmp_path: Path
) -> None:
    said = leaves(*command_on(started, command, tmp_path))
    assert option in said
    assert "Traceback" not in said


def test_learn_takes_fields_over_the_config_of_the_last_start(
    started: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rayclean.learn import command
    from rayclean.learn.result import Result
    from rayclean.learn.trial import Trial

    asked: list[tuple[Config, str]] = []

    def learn(config: Config, method: str, *_: object) -> Result:
        asked.append((config, method))
        return Result(method, "learn/x.json", [Trial("a network", "learn-1", {1: 0.25})], {})

    monkeypatch.setattr(command, "learn", learn)
    moved = tmp_path / "moved"
    started.rename(moved)
    before = (moved / "config.yaml").read_bytes()
    result = CliRunner().invoke(commands.app, ["learn", str(moved), "learn.retrain.by=weight", "run.seed=7"])
    assert result.exit_code == 0, result.output
    ((config, method),) = asked
    assert (config.run.dir, config.run.seed, config.learn.retrain.by) == (str(moved), 7, "weight")
    assert method == "retrain"  # unless another is asked for
    assert f"kept in {moved}/learn/x.json" in result.output
    assert (moved / "config.yaml").read_bytes() == before  # it is that of `rayclean run` alone


def test_show_says_what_people_say(scored: Run, tmp_path: Path) -> None:
    none = [None] * scored.catalog.num_rows
    config = edited(scored, tmp_path / "run", verified_label=[-1, 2, *none[2:]])
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(dump_config(config)))

    def shown(row: int) -> str:
        (shard,) = (shard for shard, _, _ in scored.catalog.shards_of(row, row + 1))
        name = scored.catalog.shards["name"][shard].as_py()
        first = scored.catalog.shards["first_row"][shard].as_py()
        key = scored.catalog.rows_of_shard(shard)["key"][row - first].as_py()
        result = CliRunner().invoke(commands.app, ["show", config.run.dir, key, "--shard", name])
        assert result.exit_code == 0, result.output
        return result.output

    assert "verified label   -1 none of the classes" in shown(0)
    assert "verified label   2" in shown(1).splitlines()
    assert "verified label" not in shown(2)
