"""Figures of the joint model: those of a run equal what `evaluate` says, and the table has a line a cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rayclean.config import Config, dump_config
from rayclean.errors import InputError
from rayclean.evaluate.results import evaluate_run
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from tools.cells.joint_figures import joint_figures
from tools.cells.merge_table import ALL, ONE, auroc_lines, calibration_lines, costs
from tools.cells.run import CELLS, INN_ONE_NETWORK

Tiny = Callable[..., Config]
Finish = Callable[..., Run]


def finished(config: Config, finish: Finish) -> Run:
    run = finish(config)
    Path(run.store.path, CONFIG_FILE).write_text(yaml.safe_dump(dump_config(config)))
    return run


def test_figures_are_those_of_evaluate(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finished(tiny_config(tmp_path / "run", "scores=[loss, iofm]"), finish)
    found, expected = joint_figures(tmp_path / "run"), evaluate_run(run.config)
    assert found["auroc"] == pytest.approx(expected.label_score["auroc"], abs=1e-9)
    assert found["ece"] == pytest.approx(expected.label_score["ece"], abs=1e-9)
    assert found["noise_rate"] == pytest.approx(expected.estimated_noise_rate, abs=1e-6)
    assert found["predicted_right"] == pytest.approx(expected.predicted_right["all"])
    assert found["given_right"] == pytest.approx(1 - found["true_noise_rate"])


def test_another_merge_has_no_such_figures(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    finished(tiny_config(tmp_path / "run", "scores=[loss]", "merge.score=loss"), finish)
    with pytest.raises(InputError, match="expected joint"):
        joint_figures(tmp_path / "run")


@pytest.fixture
def result() -> dict[str, Any]:
    figures = {
        **dict.fromkeys(("auroc", "oracle_auroc", "ece", "noise_rate", "true_noise_rate"), 0.25),
        **dict.fromkeys(("predicted_right", "given_right", "network_right"), 0.75),
        "belief_epoch": 8,
    }
    cost = {"epochs": 10, "forwards": 5.0}
    return {
        "joint": {ONE: {**figures, "belief_roles": []}, ALL: {**figures, "belief_roles": ["ce"]}},
        "scores": {"loss": {"final": 0.5}, "vote": {"final": 0.6}},
        "score_costs": {"iofm": cost, "inn": {**cost, "forwards": 7.0}, INN_ONE_NETWORK: cost},
    }


def test_a_step_of_training_counts_three_forwards(result: dict[str, Any]) -> None:
    assert costs(result) == {ONE: 3 * 10 + 5 + 5, ALL: 3 * 10 * 2 + 5 + 7 + 1}


def test_the_table_has_every_cell(result: dict[str, Any]) -> None:
    quality = {"scores": {"excess": {"auroc": 0.7}, "worse": {"auroc": 0.6}}, "forward_equivalents": 241.0}
    peers = {"human": {"peers": {"aum": quality}}}
    lines = auroc_lines({"human": result}, peers)
    assert len(lines) == 2 + len(CELLS)
    assert len({line.count("|") for line in lines}) == 1
    here = next(line for line in lines if line.startswith("| human |"))
    assert here == "| human | yes | .600 vote | .250 | .250 | .250 | .250 | .600 | .700 aum excess | 40, 73, 241 |"
    assert "not run: `tools/cells/run.py step`" in "\n".join(lines)
    assert calibration_lines({"human": result})[2].startswith("| human | .250, .250 | .250, .250 (.250) | .750, .750 |")
    assert np.all([line.startswith("|") for line in lines])
