"""The benchmark's cells: configs that load, costs read from a run's record, the table over results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.config import Config, load_config
from rayclean.run.run import Run
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from tools.cells.costs import Cost, cost_of
from tools.cells.run import CELLS, OF_IMAGES, ONE_NETWORK, cost_table, read_costs, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", CELLS)
def test_a_cells_config_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLEAN_CIFAR10N", "/shards")
    cell = CELLS[name]
    fixed = cell.fixed()
    config = load_config(ROOT / cell.config, [*fixed, f"scores=[{', '.join(OF_IMAGES)}]"])
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


def test_a_scores_cost_is_that_of_what_it_needs(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    train = ("train.epochs=3", "train.from=", "train.snapshot_every=2", "train.roles.ce.epochs=2", "inn.steps=4")
    run = finish(tiny_config(tmp_path, *train, "scores=[loss, aum, iofm, iofm_last, inn, odd, loss_ce]"))
    run.store.remove("record")
    steps = [{"step": "train", "role": role, "wall_s": seconds} for role, seconds in (("main", 7.0), ("ce", 2.0))]
    run.store.publish("record/steps.json", encode("record/steps.json", steps, "{}"))
    for index, walk in enumerate(run.walks):
        for job, forwards in ((run.main.embed(walk.snapshot), 1.0), (run.paths(walk), 10.0**index)):
            entry = {"busy_s": 1.0, "facts": {"forwards": forwards * run.catalog.num_rows}}
            file = f"record/{job.folder}.json"
            run.store.publish(file, encode(file, [entry], "{}"))
    assert [(walk.score, walk.snapshot.epoch) for walk in run.walks] == [("iofm", 2), ("iofm", 3), ("inn", 3)]
    assert cost_of(run, "loss") == Cost(3, 1, 7, 0)
    assert cost_of(run, "aum") == Cost(3, 3, 7, 0)
    assert cost_of(run, "loss_ce") == Cost(2, 1, 2, 0)
    assert cost_of(run, "odd") == Cost(1, 3, 7, 0)
    assert cost_of(run, "iofm") == Cost(3, 1 + 1 + 1 + 10, 7, 4)
    assert cost_of(run, "iofm_last") == Cost(3, 1 + 10, 7, 2)
    assert cost_of(run, "inn") == Cost(5, 1 + 100, 9, 2)  # the embedding by role ce has no record here


def test_the_table_of_costs() -> None:
    cost = {"epochs": 40, "forwards": 14.4, "train_s": 300.4, "score_s": 31.6}
    assert cost_table([{"cell": "one", "score_costs": {"inn": cost}}])[2] == "| inn | 40 epochs + 14, 300 + 32 s |"
