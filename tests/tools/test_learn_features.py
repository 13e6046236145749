"""Training on features by cells: commands that the command line takes, what is left alone, the tables over results."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.learn import command
from tests.tools.test_learn_cells import Commands
from tools.cells import learn_features
from tools.cells.learn import CELLS, METHODS
from tools.cells.learn_features import DECAYS, differences, file_of, main, read_results, run_cell, table


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """What would be started; results and the run lie in an empty folder."""
    monkeypatch.setattr(learn_features, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(learn_features, "RUN", tmp_path / "run")
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", str(tmp_path / "shards"))
    stand_in = Commands()
    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr(command, "learn", stand_in.learn)
    return stand_in


@pytest.mark.parametrize("cell", CELLS)
def test_the_command_line_takes_every_method_of_a_cell(cell: str, commands: Commands) -> None:
    run_cell(cell, 1, list(METHODS))
    (run,) = commands.runs
    assert run.on_features
    assert run.run.seed == 1
    assert [method for method, _ in commands.lessons] == [method for method, _ in METHODS.values()]
    for _, config in commands.lessons:
        assert config.run.seed == 1
        assert config.influence.validation is not None  # what chooses the weight decay
        assert str(config.learn.train["weight_decays"]) in DECAYS
    run_cell(cell, 1, list(METHODS))
    assert len(commands.runs) == 1  # what is finished is left alone


def keep(name: str, seed: int, right: list[int], decay: float = 0.3) -> None:
    bits = base64.b64encode(np.packbits(np.array(right, bool)).tobytes()).decode()
    trial: dict[str, Any] = {"name": "a network", "last": float(np.mean(right)), "facts": {}}
    trial["facts"]["choice"] = {"weight_decay": decay}
    trial["test"] = {"images": len(right), "correct": bits}
    path = file_of("human", name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"cell": "human", "name": name, "seed": seed, "method": METHODS[name][0], "trials": [trial]})
    )


def test_the_tables_are_over_the_seeds_and_by_pairs(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        keep("mixup", seed, [1, 0] * 50, decay=(0.1, 0.3, 0.3)[seed])
        keep("retrain", seed, [1, 1] * 30 + [1, 0] * 20)
    keep("odd_mixup", 2, [1, 0] * 50)
    lines = table(read_results())
    assert any("| mixup | not run | 50.0 (0.1, 0.3) |" in line for line in lines)
    assert any("| odd_mixup | not run | 50.0 (0.3), 1 of 3 seeds |" in line for line in lines)
    found = differences(read_results())[2:]
    assert "| human | retrain | mixup | +30.0 | 9.0 | above |" in found
    assert "| human | odd_mixup | mixup | +0.0 | 0.0 | undecided |" in found
    assert main(["--table"]) == 0
    assert found[0] in capsys.readouterr().out
