"""ODD's two distributions: every loss is in one bin, and the run's are those of its trajectories."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rayclean.catalog.noise import drawn_to_flip
from rayclean.config import Config
from rayclean.evaluate.evaluate import Evaluation, read_truth
from rayclean.evaluate.results import evaluate_run
from rayclean.evaluate.simulated import EDGES, count, histograms, split_by_truth
from rayclean.report.plots import ODD, draw
from rayclean.run.run import Run
from rayclean.schema import NONE_OF_CLASSES, UNKNOWN, Array
from rayclean.scores.simulated_loss import NUM_DRAWS
from rayclean.train.plan import role_seed
from rayclean.train.trajectories import read_trajectory

AVERAGED = (2, 3)  # epochs of which ODD takes the mean
FIXED = ("train.epochs=4", "train.from=", "train.snapshot_every=4", "scores=[loss, odd]", "simulated_loss.epoch=3")
PLANTED = ("simulated_loss.average=2", "train.roles.plant.epochs=3", "simulated_loss.planted=0.5")

losses_list = st.lists(st.floats(0, width=32), max_size=30)


@pytest.fixture(scope="module")
def planted(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("planted")
    return finish(tiny_config(folder, *FIXED, *PLANTED))


@pytest.fixture(scope="module")
def evaluation(planted: Run) -> Evaluation:
    return evaluate_run(planted.config)


def mean_losses(run: Run, role: str) -> Array:
    blocks = range(-(-run.catalog.num_rows // run.config.blocks.rows))
    folder = run.roles[role].trained.folder
    epochs = [np.concatenate([read_trajectory(run.store, folder, e, block)[0] for block in blocks]) for e in AVERAGED]
    return np.asarray(np.mean(epochs, axis=0, dtype=np.float64))


@given(losses_list)
def test_every_loss_is_in_one_bin(losses: list[float]) -> None:
    counts = count(np.array([*losses, math.nan], np.float32))
    assert len(counts) == len(EDGES) - 1
    assert sum(counts) == len(losses)
    expected = [0] * len(counts)
    for loss in losses:
        below = sum(math.log(loss) >= edge for edge in EDGES) if loss else 0
        expected[min(max(below - 1, 0), len(counts) - 1)] += 1
    assert counts == expected


@given(losses_list, st.data())
def test_the_parts_are_all_rows(losses: list[float], data: st.DataObject) -> None:
    rows = st.lists(st.sampled_from([UNKNOWN, NONE_OF_CLASSES, 0, 1, 2]), min_size=len(losses), max_size=len(losses))
    truth, labels = np.array(data.draw(rows), np.int64), np.abs(np.array(data.draw(rows), np.int64))
    parts = split_by_truth(np.array(losses), labels, truth)
    assert sorted(np.concatenate(list(parts.values()))) == sorted(losses)
    assert parts["right"].tolist() == [loss for loss, y, t in zip(losses, labels, truth, strict=True) if y == t]
    assert ("no truth" in parts) == bool((truth == UNKNOWN).any())


def test_the_losses_of_rows_are_split_by_truth(planted: Run, evaluation: Evaluation) -> None:
    found, _ = evaluation.simulated
    clean, losses = planted.catalog.label == read_truth(planted.catalog), mean_losses(planted, "main")
    assert (found.role, found.epoch) == ("main", 3)
    assert list(found.counts) == ["simulated", "right", "wrong"]
    assert found.counts["right"] == count(losses[clean])
    assert found.counts["wrong"] == count(losses[~clean])
    assert sum(found.counts["right"]) + sum(found.counts["wrong"]) == planted.catalog.num_rows


def test_the_threshold_cuts_the_simulated_losses(planted: Run, evaluation: Evaluation) -> None:
    for found in evaluation.simulated:
        counts, edges = np.array(found.counts["simulated"]), np.array(found.edges)
        assert counts.sum() == NUM_DRAWS
        share = planted.config.simulated_loss.percentile / 100
        at = math.log(found.threshold)
        assert counts[edges[1:] <= at].sum() / NUM_DRAWS <= share <= counts[edges[:-1] <= at].sum() / NUM_DRAWS


def test_planted_rows_have_a_simulation_of_their_own(planted: Run, evaluation: Evaluation) -> None:
    main, found = evaluation.simulated
    rows = drawn_to_flip(planted.catalog.draw_id, 0.5, role_seed(0, "plant"))
    assert (found.role, found.epoch) == ("plant", 3)
    assert list(found.counts) == ["simulated", "planted"]
    assert found.counts["planted"] == count(mean_losses(planted, "plant")[rows])
    assert found.counts["simulated"] != main.counts["simulated"]


def test_json_has_the_histograms(evaluation: Evaluation) -> None:
    read = json.loads(json.dumps(evaluation.to_json()))["simulated"]
    assert [each["counts"] for each in read] == [each.counts for each in evaluation.simulated]
    assert read[0]["edges"] == EDGES.tolist()


def test_a_panel_a_network_is_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    path = draw(evaluation, tmp_path)[-1]
    assert path.name == ODD
    assert Image.open(path).size == (800, 800)


def test_without_odd_there_is_no_picture(scored: Run, tmp_path: Path) -> None:
    found = evaluate_run(scored.config)
    assert found.simulated == []
    assert [path.name for path in draw(found, tmp_path)] == ["curves.png", "reliability.png"]
    assert not (tmp_path / ODD).exists()


def test_a_threshold_of_no_loss_is_drawn_at_the_edge(evaluation: Evaluation, tmp_path: Path) -> None:
    empty = histograms("main", 3, np.zeros(5), 0.0, {"right": np.empty(0), "wrong": np.full(2, np.inf)})
    assert empty.counts["simulated"][0] == 5
    assert sum(empty.counts["right"]) == 0
    assert empty.counts["wrong"][-1] == 2
    assert Image.open(draw(replace(evaluation, simulated=[empty]), tmp_path)[-1]).size == (800, 400)
