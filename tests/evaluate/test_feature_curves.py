"""Scores out of fold have curves: at each snapshot what the heads of then, blind to the row, make of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rayclean.config import Config
from rayclean.evaluate.evaluate import Evaluation
from rayclean.evaluate.results import evaluate_run
from rayclean.report.text import print_curves
from rayclean.run.families import out_of_fold
from rayclean.run.run import Run
from rayclean.scores.readers import OutOfFoldReader
from rayclean.storage.contents import map_arrays
from tests.feature_runs import ROWS, clusters, feature_config, write_feature_shards

EVERY = 4


@pytest.fixture(scope="module")
def run(finish: Callable[[Config], Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With snapshots. Only to be read."""
    folder = tmp_path_factory.mktemp("curves")
    shards = write_feature_shards(folder / "shards", clusters())
    return finish(
        feature_config(folder / "run", shards, train={"epochs": 3 * EVERY, "snapshot_every": EVERY, "folds": 3})
    )


def reader(run: Run) -> OutOfFoldReader:
    added = out_of_fold(run)
    assert added is not None
    assert isinstance(added.reader, OutOfFoldReader)
    return added.reader


def test_each_snapshot_has_a_point_and_the_last_one_is_the_tables(run: Run) -> None:
    result = evaluate_run(run.config)
    epochs = list(range(EVERY, run.heads.task.epochs + 1, EVERY))
    for name in ("loss_oof", "margin_oof"):
        quality = result.scores[name]
        assert list(quality.curve) == epochs
        assert quality.curve[epochs[-1]] == quality.final
        assert len(set(quality.curve.values())) > 1
    found = printed(result)
    assert all(f" {epoch} " in found for epoch in epochs)


def printed(result: Evaluation) -> str:
    text = io.StringIO()
    print_curves(Console(file=text, width=400), result)
    return text.getvalue()


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (16, 16), (17, 9), (60, 15)])
def test_curves_of_many_snapshots_are_printed_at_some_and_at_the_last(run: Run, count: int, shown: int) -> None:
    result = evaluate_run(run.config)
    curve = {10_000 + epoch: 0.5 for epoch in range(count)}
    scores = {"loss_oof": replace(result.scores["loss_oof"], curve=curve)}
    text = printed(replace(result, scores=scores))
    columns = [epoch for epoch in curve if f" {epoch} " in text]
    assert len(columns) == shown
    assert columns[-1] == 10_000 + count - 1


def test_a_point_is_of_heads_that_have_not_seen_the_label(
    run: Run, finish: Callable[[Config], Run], tmp_path: Path
) -> None:
    rows, folds = clusters(), run.heads.task.folds()
    half = (folds == 0) & (np.arange(ROWS) % 2 == 0)
    changed = rows._replace(given=np.where(half, (rows.given + 1) % 3, rows.given))
    shards = write_feature_shards(tmp_path / "shards", changed)
    other = finish(replaced(run.config, tmp_path / "run", shards))
    for (epoch, one), (also, two) in zip(reader(run).courses(ROWS), reader(other).courses(ROWS), strict=True):
        assert epoch == also
        same = one["loss_oof"] == two["loss_oof"]
        assert same[(folds == 0) & ~half].all()  # no label of their fold has reached their heads
        assert not same[folds != 0].any()
        assert not same[half].any()


def replaced(config: Config, folder: Path, shards: str) -> Config:
    run = config.run.model_copy(update={"dir": str(folder)})
    return config.model_copy(update={"run": run, "data": config.data.model_copy(update={"shards": shards})})


def test_the_last_point_is_what_a_mean_of_the_last_heads_gives(run: Run) -> None:
    task = run.heads.task
    again = replace(reader(run), epochs=())
    (epoch, scores), *rest = again.courses(ROWS)
    assert not rest
    assert epoch == task.epochs
    files = [map_arrays(run.store, f"{run.heads.blind.folder}/{block:06d}.safetensors") for block in range(3)]
    np.testing.assert_array_equal(scores["loss_oof"], np.concatenate([each["loss_oof"] for each in files]))
