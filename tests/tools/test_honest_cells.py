"""Cells by features: what is kept is not redone, what other settings decided is, the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayclean.errors import RaycleanError
from tools.cells import honest
from tools.cells.honest import main, run_cell, settings
from tools.cells.honest_data import Folders
from tools.cells.honest_table import tables
from tools.cells.honest_ways import Way

NOW = {"commit": "abc", "dirty": False}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """What was computed, in place of computing it; results go to a folder of the test."""
    done: list[tuple[str, int]] = []

    def figures(kind: str, _: Way, seed: int, num_draws: int) -> dict[str, Any]:
        done.append((f"{kind} {num_draws}", seed))
        return {}

    monkeypatch.setattr(honest, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(honest, "read_cell", lambda *_: None)
    monkeypatch.setattr(honest, "figures_of", figures)
    monkeypatch.setattr(honest, "settings", lambda: dict(NOW))
    return done


def kept_kinds() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((honest.RESULTS / "human_0.json").read_text())["kinds"]
    return found


def test_a_rerun_adds_what_is_missing(asked: list[tuple[str, int]]) -> None:
    run_cell("human_0", Folders(), [0], ["judged"], 5)
    run_cell("human_0", Folders(), [0, 1, 2], ["judged"], 5)
    run_cell("human_0", Folders(), [1], ["verified"], 5)
    run_cell("human_0", Folders(), [1], ["verified", "proposed"], 5)
    run_cell("human_0", Folders(), [1], ["verified"], 5)
    assert asked == [("judged 5", 0), ("judged 5", 1), ("judged 5", 2), ("verified 5", 1), ("proposed 5", 1)]
    assert {kind: (each["settings"], list(each["seeds"])) for kind, each in kept_kinds().items()} == {
        "judged": (NOW, ["0", "1", "2"]),
        "verified": (NOW, ["1"]),
        "proposed": (NOW, ["1"]),
    }


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("now", [{"commit": "abd", "dirty": False}, {"commit": "abc", "dirty": True}])
def test_what_other_settings_decided_is_made_anew_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, now: dict[str, Any]
) -> None:
    run_cell("human_0", Folders(), [0, 1], ["judged", "removed"], 0)
    monkeypatch.setattr(honest, "settings", lambda: now)
    run_cell("human_0", Folders(), [1], ["judged"], 0)
    assert {kind: (each["settings"], list(each["seeds"])) for kind, each in kept_kinds().items()} == {
        "judged": (now, ["1"]),
        "removed": (NOW, ["0", "1"]),
    }


def test_predictions_of_others_have_one_seed(asked: list[tuple[str, int]]) -> None:
    run_cell("worst-resnet18_0", Folders(), [0, 1, 2], ["judged"], 0)
    assert asked == [("judged 0", 0)]


def test_a_folder_that_is_not_given_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(honest, "RESULTS", tmp_path)
    with pytest.raises(RaycleanError, match="--features FOLDER"):
        main(["human_0"])
    assert not list(tmp_path.iterdir())


def test_settings_are_those_of_a_commit() -> None:
    found = settings()
    assert set(found["commit"]) <= set("0123456789abcdef")
    assert len(found["commit"]) >= 7
    assert isinstance(found["dirty"], bool)


def figures(auroc: float, verdict: str, best: str) -> dict[str, Any]:
    """What is kept of a seed."""
    quality, difference = {"auroc": auroc, "average_precision": 0.5}, {"difference": 0.01, "low": -0.01, "high": 0.03}
    return {
        "rows": 100,
        "label_score": quality,
        "scores": {"aum": quality, "loss": quality},
        "cleanlab": {"heads self_confidence": quality},
        "best": {"single": best, "cleanlab": "heads self_confidence"},
        "oracle": quality | {"predicted_right": 0.8},
        "less_single": difference | {"verdict": verdict},
        "less_cleanlab": difference | {"verdict": "more"},
        "predicted_right": 0.75,
        "given_right": 0.6,
        "argmax_right": 0.7,
        "noise_rate": {"true": 0.4, "found": 0.35, "low": 0.2, "high": 0.5},
        "interval_holds": True,
        "calibration_error": 0.05,
        "predicted_none": 0,
        "flagged": {"share": 0.3, "precision": 0.9, "recall": 0.7},
        "reliable": True,
        "seconds": 9.6,
    }


def removed(wrong: float) -> dict[str, Any]:
    """Likewise, of an export."""
    return {
        "cautious": {"wrong": wrong, "share": 0.2, "recall": 0.5},
        "by_word": {"wrong": None, "share": 0.3, "recall": 0.6},
    }


def kinds(**seeds: dict[str, Any]) -> dict[str, Any]:
    """By kind the figures of some seeds, as files have them."""
    return {kind: {"settings": NOW, "seeds": each} for kind, each in seeds.items()}


def test_the_tables() -> None:
    seeds = {"0": figures(0.9, "tie", "aum"), "1": figures(0.91, "more", "loss")}
    errors = {"calibration_error": 0.02, "noise_rate_error": 0.01, "sampled_rate_error": 0.03, "removed_wrong": None}
    verified = {seed: dict.fromkeys(("100", "400"), errors) for seed in ("0", "1")}
    proposed = {"1": dict.fromkeys(("100", "400"), errors | {"removed_wrong": 0.9})}
    goes = {"0": removed(0.9), "1": removed(0.91)}
    one = kinds(judged={"0": figures(0.8, "less", "aum")}, verified=verified, proposed=proposed)
    found = tables([{"cell": "two", "kinds": kinds(judged=seeds, removed=goes)}, {"cell": "one", "kinds": one}])
    assert found[2] == (
        "| two | 100 | .9050 (.5000) | .9050 (.5000) aum, loss | .9050 (.5000) heads self_confidence | .9050 (.5000) "
        "| +0.0100 [-0.0100, +0.0300] 1 tie, 1 more | +0.0100 [-0.0100, +0.0300] more |"
    )
    assert found[7] == (
        "| two | .750 | .600 | .700 | .800 | .350 [.200, .500] of .400, held 2 of 2 | .050 | .000 "
        "| .300, .900, .700 | 2 of 2 | 10 |"
    )
    assert found[9:13] == ["", *found[10:12], "| two | 2 | .905 | .900 | .200 | .500 | - | .600 |"]
    assert found[13] == ""
    assert found[-1] == "| one | 1 |" + " .020, .020 | .010, .010 | .030, .030 | -, .900 |" * 2
    assert [line.count("|") for line in found[-3:]] == [11, 11, 11]
    assert tables([]) == []
