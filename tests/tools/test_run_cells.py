"""The benchmark's cells: configs that load, costs read from a run's record, the table over results."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayclean.config import load_config
from rayclean.schema import SCORES
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from tools.run_cells import CELLS, ONE_NETWORK, read_costs, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_config_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", "/shards")
    cell = CELLS[name]
    fixed = cell.fixed()
    config = load_config(ROOT / cell.config, [*fixed, f"scores=[{', '.join(SCORES)}]"])
    assert tuple(config.neighbors.vote_epochs) == config.train.snapshot_epochs()
    assert set(config.role_names()) == {"main", "ce", "ce_ne", "aum1", "aum2"}
    assert config.has_truth
    assert config.train.epochs == cell.last
    assert load_config(ROOT / cell.config, [*fixed, *ONE_NETWORK]).role_names() == ("main",)


def test_costs_are_added_up_by_stage(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    steps = [{"step": "train", "wall_s": 5.0}, {"step": "paths", "wall_s": 2.0}, {"step": "paths", "wall_s": 1.5}]
    job = [{"step": "paths", "busy_s": 4.0, "facts": {"forwards": 30}}, {"step": "paths", "busy_s": 1.0, "facts": {}}]
    for name, content in (("steps", steps), ("paths-1", job), ("paths-2", job[:1])):
        store.publish(f"record/{name}.json", encode(f"record/{name}.json", content, "{}"))
    assert read_costs(store) == {
        "train": {"wall_s": 5.0, "busy_s": 0.0, "forwards": 0.0},
        "paths": {"wall_s": 3.5, "busy_s": 9.0, "forwards": 60.0},
    }


def test_the_table_has_a_row_a_score_and_a_column_a_cell() -> None:
    def quality(best: float, final: float) -> dict[str, float]:
        return {"best": best, "final": final}

    results = [
        {"cell": "one", "true_noise_rate": 0.3, "scores": {"loss": quality(0.95, 0.7), "inn": quality(1.0, 0.9)}},
        {"cell": "two", "true_noise_rate": 0.4, "scores": {"loss": quality(0.8, 0.8)}},
    ]
    assert table(results) == [
        "| score | one | two |",
        "|---|---|---|",
        "| loss | .950 (.700) | .800 (.800) |",
        "| inn | 1.000 (.900) |  |",
        "| *wrong labels* | .300 | .400 |",
    ]
