"""The study of IOFM's settings: it goes on where it was left, and a start measures all of its paths and no other's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.config import Config, load_config
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.contents import encode, map_arrays, read_json
from rayclean.storage.published import MANIFEST, Published, TableFile
from rayclean.storage.store import Store
from tools.cells.run import CELLS, Cell
from tools.cells.sweep_paths import ONE_PART, STEPS, SWEEPS, Setting, spent, study, tables

ROOT = Path(__file__).parents[2]
SETTINGS = list(dict.fromkeys(setting for sweep in SWEEPS.values() for setting in sweep))
STEPS_FILE = "record/steps.json"
CELL = Cell("config.yaml", ("train.epochs=3",), 1, 3)


class FakeRun:
    """Answers as a start and its evaluation do, and records what such a start would."""

    def __init__(self, folder: Path, fail_at: int | None = None) -> None:
        self.store, self.fail_at = Store(str(folder)), fail_at
        self.started: list[list[str]] = []
        self.steps = read_json(self.store, STEPS_FILE) if self.store.exists(STEPS_FILE) else []
        self._publish(STEPS_FILE, self.steps)
        summary = encode("summary.json", {"rows": 50}, "{}")
        self.store.publish("tables/summary-0.json", summary)
        file = TableFile.of("tables/summary-0.json", summary)
        self.store.publish(MANIFEST, Published(self.store, "merge-0", (), 0, (file,)).encode())

    def _publish(self, name: str, content: Any) -> None:
        self.store.publish(name, encode(name, content, "{}"))

    def __call__(self, cell: Cell, folder: Path, changes: Sequence[str]) -> dict[str, Any]:
        self.started.append(list(changes))
        if len(self.started) == self.fail_at:
            raise KeyboardInterrupt
        self.steps += [{"step": step, "wall_s": 2.0} for step in STEPS]
        self._publish(STEPS_FILE, self.steps)
        count = len(self.steps) // len(STEPS)
        for step in STEPS:
            facts = {"forwards": 100 * count} if step == "paths" else {}
            self._publish(f"record/{step}-{count}.json", [{"step": step, "busy_s": 3.0, "facts": facts}])
        quality = {"curve": {"1": 0.7, "3": 0.9}, "best": 0.9, "best_epoch": 3, "final": 0.9, "mean_clean": {}}
        return {"scores": {"iofm": quality, "iofm_last": quality | {"final": 0.8}}}


def test_the_sweeps_share_the_usual_setting() -> None:
    assert all(Setting() in sweep for sweep in SWEEPS.values())
    assert len(SETTINGS) == sum(map(len, SWEEPS.values())) - 2
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("name", CELLS)
def test_a_setting_changes_iofm_and_nothing_before_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", "/shards")
    cell = CELLS[name]
    finished = load_config(ROOT / cell.config, cell.fixed())
    for setting in SETTINGS:
        config = load_config(ROOT / cell.config, [*cell.changes, *setting.changes(7)])
        assert (config.iofm.num, config.iofm.steps, config.neighbors.pool) == (setting.num, setting.steps, setting.pool)
        assert config.role_names() == ("main",)
        for section in ("data", "noise", "model", "train", "score"):
            assert getattr(config, section) == getattr(finished, section)


def test_a_study_measures_each_start_alone(tmp_path: Path) -> None:
    run, file = FakeRun(tmp_path / "run"), tmp_path / "paths" / "one.json"
    study("one", CELL, tmp_path / "run", file, run)
    found = json.loads(file.read_text())["settings"]
    assert list(found) == [setting.key for setting in SETTINGS]
    for count, measured in enumerate(found.values(), start=1):
        assert measured["forwards"] == 100 * count
        assert measured["forwards_each"] == count  # of 50 rows and 2 snapshots
        assert measured["wall_s"] == dict.fromkeys(STEPS, 2.0)
        assert measured["busy_s"] == dict.fromkeys(STEPS, 3.0)
    assert measured["scores"]["iofm_last"] == {"best": 0.9, "best_epoch": 3, "final": 0.8}
    assert run.started[0][:2] == [f"run.dir={tmp_path / 'run'}", "train.epochs=3"]


def test_an_interrupted_study_goes_on_with_a_start_of_its_own(tmp_path: Path) -> None:
    folder, file = tmp_path / "run", tmp_path / "one.json"
    first = FakeRun(folder, fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        study("one", CELL, folder, file, first)
    assert len(json.loads(file.read_text())["settings"]) == 2
    second = FakeRun(folder)
    study("one", CELL, folder, file, second)
    assert [*json.loads(file.read_text())["settings"]] == [setting.key for setting in SETTINGS]
    rows = [change for changes in (*first.started, *second.started) for change in changes if "index_rows" in change]
    assert rows == [f"blocks.index_rows={ONE_PART + start}" for start in range(1, len(SETTINGS) + 2)]
    third = FakeRun(folder)
    study("one", CELL, folder, file, third)
    assert third.started == []


def test_a_start_that_did_no_paths_is_refused() -> None:
    costs = {step: {"wall_s": 1.0, "busy_s": 1.0, "forwards": 1.0} for step in STEPS}
    assert spent({}, costs) == costs
    with pytest.raises(ValueError, match="no costs of step neighbors"):
        spent(costs, costs)


def test_a_table_a_sweep() -> None:
    measured = {
        "scores": {"iofm": {"best": 0.91234, "final": 0.9}, "iofm_last": {"final": 1.0}},
        "forwards_each": 13.046,
        "wall_s": dict(zip(STEPS, (1.0, 2.04, 30.0, 0.5), strict=True)),
        "busy_s": dict(zip(STEPS, (0.5, 1.0, 40.0, 0.25), strict=True)),
    }
    settings = {Setting().key: measured, Setting(pool=100).key: measured}
    seconds = "work, s | neighbors, s | pairs, s | paths, s | interpolate, s"
    columns = f"iofm best | iofm final | iofm_last final | forwards | {seconds}"
    figures = ".9123 | .9000 | 1.0000 | 13.05 | 41.8 | 1.0 | 2.0 | 30.0 | 0.5"
    rule = "|---|---|---|---|---|---|---|---|---|---|"
    assert tables({"cell": "one", "settings": settings}) == [
        "one: AUROC; forwards of paths per sample and snapshot; work of all four steps, then their seconds on the "
        "clock",
        *("", f"| L | {columns} |", rule, f"| 10 | {figures} |"),
        *("", f"| H | {columns} |", rule, f"| 3 | {figures} |"),
        *("", f"| pool | {columns} |", rule, f"| none | {figures} |", f"| 100 | {figures} |"),
    ]


def test_a_start_does_its_paths_anew_and_keeps_what_is_before_them(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    first = finish(tiny_config(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    setting = Setting(first.config.iofm.num, first.config.iofm.steps)
    starts = [finish(tiny_config(tmp_path, *setting.changes(start))) for start in (1, 2)]
    kept = ("catalog-", "train-", "embed-")
    changed = {file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_mtime_ns != before.get(file)}
    assert changed
    assert not [file for file in changed if file.relative_to(tmp_path).parts[0].startswith(kept)]
    folders = [folders_after_embedding(run) for run in starts]
    assert not folders[0] & folders[1]
    for run in starts:
        np.testing.assert_allclose(scores_of(run), scores_of(first), rtol=0, atol=1e-6)


def folders_after_embedding(run: Run) -> set[str]:
    lists = {run.lists_folder(walk.space, walk.num) for walk in run.walks}
    return lists | {make(walk).folder for walk in run.walks for make in (run.pairs, run.paths, run.interpolate)}


def scores_of(run: Run) -> Array:
    files = [[run.interpolate(walk).file(unit) for unit in run.interpolate(walk).units()] for walk in run.walks]
    return np.stack([np.concatenate([map_arrays(run.store, name)["score"] for name in names]) for names in files])
