"""Training with the result by cells: commands that the command line takes, what is kept, the tables over results."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rayclean.cli.commands import app
from rayclean.config import Config, dump_config, load_config
from rayclean.learn import command, methods
from rayclean.learn.result import Result as Learned
from rayclean.learn.trial import Trial
from tools.cells import learn
from tools.cells.learn import (
    CELLS,
    COMPARED,
    COST_H,
    DIVIDE_RATE,
    METHODS,
    NEW_NETWORK,
    by_class,
    differences,
    interval,
    main,
    read_results,
    removals,
    table,
)

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]
Keep = Callable[..., None]


class Commands:
    """Stands in for `subprocess.run`: takes the commands as the command line does, and does nothing of them.

    Attributes:
        given: all commands, as text.
        runs: config of each `rayclean run`.
        lessons: method and config of each `rayclean learn`.
    """

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.runs: list[Config] = []
        self.lessons: list[tuple[str, Config]] = []

    def __call__(self, command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["check"] is True  # else a failed command would be kept as a result
        _, name, *arguments = text = [str(each) for each in command]
        self.given.append(text)
        if name == "run":
            config = load_config(ROOT / arguments[0], arguments[1:])
            self.runs.append(config)
            folder = Path(config.run.dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(yaml.safe_dump(dump_config(config)))
            return subprocess.CompletedProcess(text, 0, "")
        ended = CliRunner().invoke(app, [name, *arguments], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return subprocess.CompletedProcess(text, 0, ended.stdout)

    def learn(self, config: Config, method: str, *_: object) -> Learned:
        """In the place of `rayclean.learn.command.learn`."""
        self.lessons.append((method, config))
        return Learned(method, "learn/x.json", [Trial("a network", "learn-1", {1: 0.25})], {})


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results, empty; runs lie beside it, shards nowhere."""
    monkeypatch.setattr(learn, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(learn, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", str(tmp_path / "shards"))
    return tmp_path / "results"


@pytest.fixture
def commands(results: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """What would be started."""
    stand_in = Commands()
    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr(command, "learn", stand_in.learn)
    return stand_in


@pytest.fixture
def keep(results: Path) -> Keep:
    """`keep(cell, name, trial, ..., seed=0)` puts a result where it belongs."""

    def do(cell: str, name: str, *trials: Result, seed: int = 0) -> None:
        file = learn.file_of(cell, name, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        result = {"cell": cell, "name": name, "method": METHODS[name][0], "seed": seed, "trials": trials}
        file.write_text(json.dumps(result))

    return do


def trial(best: float = 0.5, last: float = 0.25, name: str = "on everything", **more: Any) -> Result:
    return {"name": name, "best": best, "last": last, "facts": {}, "removal": None, **more}


def turn(number: int, last: float = 0.25, undone: bool = False, **more: Any) -> Result:
    """A round of Influential Rank."""
    return trial(last, last, f"round {number}", facts={"undone": undone}, **more)


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("this is not to be done again")


def cells_of(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|").split("|")]


@pytest.mark.parametrize("cell", CELLS)
def test_the_command_line_takes_every_method_of_a_cell(cell: str, commands: Commands) -> None:
    assert main([cell]) == 0
    assert [method for method, _ in commands.lessons] == [method for method, _ in METHODS.values()]
    run = commands.runs[0]
    assert all(config == run for config in commands.runs)  # one for all methods
    assert run.role_names() == ("main",)
    assert run.train.epochs == run.train_to_learn().epochs == CELLS[cell].last
    for method, config in commands.lessons:
        assert (config.run, config.data, config.noise, config.train) == (run.run, run.data, run.noise, run.train)
        test = config.test_data()
        assert test is not None
        assert (test.label, test.shards) == ("json:clean_label", config.influence.validation)
        assert config.influence.validation_num == 20
        if method == "dividemix":
            assert config.learn.dividemix.lambda_u == DIVIDE_RATE[cell]
    assert len({(method, config.learn.model_dump_json()) for method, config in commands.lessons}) == len(METHODS)


def test_every_method_is_one_that_rayclean_has_and_has_a_cost() -> None:
    assert {method for method, _ in METHODS.values()} == set(methods.METHODS.names()) == set(COST_H)
    assert set(DIVIDE_RATE) == set(CELLS)


def test_a_seed_is_a_run_of_its_own(commands: Commands, results: Path) -> None:
    main(["step", "ce", "--set", "resources.train.cpus=1"])
    main(["step", "ce", "--set", "resources.train.cpus=1", "--seed", "3"])
    first, second = commands.runs
    assert (second.run.seed, first.run.seed) == (3, 0)
    assert first.run.dir != second.run.dir
    assert [config.run.seed for _, config in commands.lessons] == [0, 3]
    assert [config.resources.train.cpus for _, config in commands.lessons] == [1, 1]
    assert {path.name for path in results.glob("*/*")} == {"ce.json", "ce-seed3.json"}


def test_what_is_kept_is_what_learn_printed(commands: Commands) -> None:
    main(["human", "odd"])
    ((result,),) = (by_name["odd"] for by_name in read_results().values())
    assert (result["cell"], result["name"], result["method"], result["seed"]) == ("human", "odd", "odd", 0)
    assert result["trials"][0]["accuracy"] == {"1": 0.25}
    assert set(result["options"]) < set(commands.given[-1])
    assert min(result["run_s"], result["learn_s"]) >= 0


def test_a_finished_result_is_left_alone(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["step", "ce"])
    kept = learn.file_of("step", "ce", 0)
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    main(["step", "ce", "odd"])
    assert [method for method, _ in commands.lessons] == ["plain", "odd"]
    monkeypatch.setattr(subprocess, "run", refuse)
    assert main(["step", "ce", "odd"]) == 0
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    with pytest.raises(AssertionError, match="not to be done again"):
        main(["step", "ce", "--seed", "1"])


def test_a_command_that_fails_leaves_no_result(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> NoReturn:
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        main(["step", "ce"])
    assert not list(results.rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["step", "ce", "nonsense"], r"no method nonsense; methods: ce, mixup,"),
        (["nowhere"], r"invalid choice: 'nowhere'"),
        ([], r"a cell of step, human, .* is expected, or --table"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_starts(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def rows_of(lines: Sequence[str]) -> dict[str, dict[str, str]]:
    """The table by method and cell."""
    head, _, *rows = (cells_of(line) for line in lines)
    assert head == ["method", *CELLS]
    return {name: dict(zip(CELLS, cells, strict=True)) for name, *cells in rows}


def test_a_cell_without_a_result_is_called_so(keep: Keep) -> None:
    keep("human", "odd", trial(0.912, 0.85))
    found = rows_of(table(read_results()))
    assert [name for name in found if not name.endswith(NEW_NETWORK)] == list(METHODS)
    assert found["odd"].pop("human") == "91.2 (85.0)"
    assert {value for cells in found.values() for value in cells.values()} == {"not run"}


def test_the_table_has_the_last_network_and_means_over_the_seeds(keep: Keep) -> None:
    keep("step", "retrain", trial(0.99, 0.99), trial(0.5, 0.4, "retrain by cut"))
    keep("step", "retrain", trial(0.99, 0.99), trial(0.7, 0.5, "retrain by cut"), seed=1)
    keep("step", "ce", trial(0.5, 0.5), seed=4)  # without that of seed 0
    found = rows_of(table(read_results()))
    assert found["retrain"]["step"] == "60.0 (45.0, 2 seeds)"
    assert found["ce"]["step"] == "50.0 (50.0)"


def test_influential_rank_ends_with_its_last_round_that_was_not_undone(keep: Keep) -> None:
    new = trial(0.9, 0.9, NEW_NETWORK)
    keep("step", "ce_rank", trial(), turn(1, 0.4), turn(2, 0.6), turn(3, 0.1, undone=True), new)
    keep("human", "ce_rank", trial(0.5, 0.3), turn(1, 0.1, undone=True), new)
    keep("clean", "ce_longer", trial(), turn(1, 0.2), turn(2, 0.7))
    found = rows_of(table(read_results()))
    shown = {name: [found[name][cell] for cell in ("step", "human")] for name in found if name.startswith("ce_rank")}
    assert shown == {
        "ce_rank": ["60.0 (60.0)", "50.0 (30.0)"],
        f"ce_rank, {NEW_NETWORK}": ["90.0 (90.0)", "90.0 (90.0)"],
    }
    assert found["ce_longer"]["clean"] == "70.0 (70.0)"
    assert f"ce_longer, {NEW_NETWORK}" not in found  # nothing was relabelled for one


def test_a_method_is_compared_where_both_were_run(keep: Keep) -> None:
    (name, other), *_ = COMPARED
    keep("step", name, trial(0.9, 0.75))
    keep("step", other, trial(0.9, 0.5))
    keep("human", name, trial(0.9, 0.75))
    _, _, line = differences(read_results())
    assert cells_of(line) == ["step", name, other, "+25.0", f"{100 * interval(0.75, 0.5):.1f}", "above"]
    assert all({each, before} <= set(METHODS) for each, before in COMPARED)


def test_removals_are_listed_by_step_with_what_is_known_of_them(keep: Keep) -> None:
    removal = {"removed": 1200, "rows": 10_000, "precision": 0.75, "kept_right": 0.9}
    unknown = {"removed": 0, "rows": 10_000, "precision": None, "kept_right": None}
    keep("step", "ce_rank", trial(), turn(1, removal=removal), turn(2, undone=True, removal=removal))
    keep("clean", "odd", trial(name="odd", removal=unknown))
    keep("clean", "retrain", trial(removal={"removed": 5, "relabelled": 0, "rows": 10}))  # of shards without a truth
    head, _, *lines = removals(read_results())
    assert sorted(map(cells_of, lines)) == [
        ["clean", "odd", "odd", "0 of 10,000", "-", "-"],
        ["step", "ce_rank", "round 1", "1,200 of 10,000", "0.750", "0.100"],
        ["step", "ce_rank", "round 2 (undone)", "1,200 of 10,000", "0.750", "0.100"],
    ]
    assert {line.count("|") for line in lines} == {head.count("|")}


def test_the_tables_are_printed_without_a_cell(keep: Keep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table"]) == 0
    assert "| ce | not run |" in capsys.readouterr().out
    keep("step", "ce", trial())
    main(["--table"])
    printed, found = capsys.readouterr().out.splitlines(), read_results()
    assert [line for line in printed if line] == [*table(found), *differences(found), *removals(found)]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_the_interval_shrinks_with_the_samples_and_never_asks_which_is_which(a: float, b: float, samples: int) -> None:
    width = interval(a, b, samples)
    assert width == pytest.approx(interval(b, a, samples))
    assert interval(a, b, 4 * samples) == pytest.approx(width / 2)
    assert 0 <= width <= interval(0.5, 0.5, samples) + 1e-12


def test_the_interval_holds_the_difference_in_19_of_20_draws() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.binomial(1800, [[0.8], [0.7]], (2, 4000)) / 1800
    widths = np.array([interval(x, y, 1800) for x, y in zip(a, b, strict=True)])
    assert np.mean(np.abs(a - b - 0.1) <= widths) == pytest.approx(0.95, abs=0.015)


def test_what_is_left_out_is_counted_by_given_label(results: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("step", "odd", trial(facts={"lesson": "lesson-1/lesson.safetensors"}))
    given = np.array([0, 0, 0, 0, 1, 1])
    run = SimpleNamespace(
        store=None, catalog=SimpleNamespace(label=given), classes=SimpleNamespace(names=("cat", "dog", "none"))
    )
    monkeypatch.setattr(learn, "load_config", lambda *_: None)
    monkeypatch.setattr(learn, "look", lambda *_: run)
    monkeypatch.setattr(learn, "map_arrays", lambda *_: {"labels": np.array([0, 1, -1, 0, -1, -1])})
    assert by_class("step", "odd")[2:] == ["| cat | 4 | 0.25 |", "| dog | 2 | 1.00 |", "| none | 0 | - |"]
