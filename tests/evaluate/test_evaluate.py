"""`evaluate` against scikit-learn, on a run whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.evaluate.evaluate import Evaluation, auroc, read_truth
from rayclean.evaluate.results import evaluate_run, true_noise_rate
from rayclean.report.page_truth import read_some_truth
from rayclean.report.plots import draw
from rayclean.run.run import Run
from rayclean.schema import NONE_OF_CLASSES, UNKNOWN, Array
from rayclean.scores.trajectory import trajectory_scores
from rayclean.storage.contents import map_arrays, read_table
from rayclean.train.trajectories import read_trajectory
from tests.helpers import Content, sample


@pytest.fixture(scope="module")
def evaluation(trained: Run) -> Evaluation:
    return evaluate_run(trained.config)


@pytest.fixture(scope="module")
def truth(trained: Run, tiny_samples: list[list[Content]]) -> Array:
    """By key, from the samples themselves."""
    by_key = {}
    for members in tiny_samples:
        content = {name.partition(".")[2]: data for name, data in members}
        if "json" in content:
            by_key[members[0][0].partition(".")[0]] = json.loads(content["json"])["truth"]
    return np.array([by_key[key] for key in table_of(trained)["key"].to_pylist()])


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def epochs_of(run: Run) -> list[tuple[Array, Array, Array]]:
    """loss, margin, wrong of all rows after each epoch."""
    blocks = range(-(-run.catalog.num_rows // run.config.blocks.rows))
    result = []
    for epoch in range(1, run.main.trained.epochs + 1):
        pieces = [read_trajectory(run.store, run.main.task.folder, epoch, block) for block in blocks]
        loss, margin, wrong = (np.concatenate(column) for column in zip(*pieces, strict=True))
        result.append((loss, margin, wrong))
    return result


def test_the_truth_is_read_by_row(trained: Run, truth: Array) -> None:
    found = read_truth(trained.catalog)
    assert found.tolist() == truth.tolist()
    wrong = (trained.catalog.label != truth).mean()
    assert 0.1 < wrong < 0.4


@pytest.mark.parametrize("name", ["loss", "ens_loss", "margin", "aum", "wrong_events"])
def test_trajectory_curves(name: str, trained: Run, truth: Array, evaluation: Evaluation) -> None:
    clean = trained.catalog.label == truth
    epochs = epochs_of(trained)
    expected = {
        last: roc_auc_score(clean, trajectory_scores(*(np.stack(c) for c in zip(*epochs[:last], strict=True)))[name])
        for last in range(1, len(epochs) + 1)
    }
    assert_quality(evaluation, name, expected)


def assert_quality(evaluation: Evaluation, name: str, expected: dict[int, float]) -> None:
    found = evaluation.scores[name]
    assert found.curve.keys() == expected.keys()
    np.testing.assert_allclose(list(found.curve.values()), list(expected.values()), rtol=0, atol=1e-12)
    assert found.best == max(found.curve.values())
    assert found.best_epoch == min(epoch for epoch, value in found.curve.items() if value == found.best)
    assert found.final == found.curve[max(expected)]
    assert 0 < found.average_precision <= 1


def test_interpolation_curves(trained: Run, truth: Array, evaluation: Evaluation) -> None:
    clean = trained.catalog.label == truth
    scores = {}
    for walk in trained.walks:
        job = trained.interpolate(walk)
        pieces = [map_arrays(trained.store, job.file(unit))["score"] for unit in job.units()]
        scores[walk.snapshot.epoch] = np.concatenate(pieces)
    assert list(scores) == [2, 3]
    assert_quality(evaluation, "iofm_last", {epoch: roc_auc_score(clean, s) for epoch, s in scores.items()})
    means = {2: scores[2], 3: (scores[2] + scores[3]) / 2}
    assert_quality(evaluation, "iofm", {epoch: roc_auc_score(clean, s) for epoch, s in means.items()})


def test_the_mean_scores_of_right_and_wrong_labels(trained: Run, truth: Array, evaluation: Evaluation) -> None:
    clean = trained.catalog.label == truth
    scores = table_of(trained)["score_iofm_last"].to_numpy()
    found = evaluation.scores["iofm_last"]
    assert found.mean_clean[3] == pytest.approx(scores[clean].mean())
    assert found.mean_wrong[3] == pytest.approx(scores[~clean].mean())
    assert found.mean_clean.keys() == found.mean_wrong.keys() == found.curve.keys()


def test_the_vote_has_the_first_and_the_last_snapshot(trained: Run, truth: Array, evaluation: Evaluation) -> None:
    clean = trained.catalog.label == truth
    votes = [
        np.concatenate(
            [map_arrays(trained.store, trained.vote(s).file(unit))["vote"] for unit in trained.vote(s).units()]
        )
        for s in trained.voted
    ]
    assert [snapshot.epoch for snapshot in trained.voted] == [2, 3]
    curve = {epoch: roc_auc_score(clean, vote) for epoch, vote in zip((2, 3), votes, strict=True)}
    assert_quality(evaluation, "vote", curve)
    assert list(evaluation.scores) == list(trained.config.score_names())


def test_the_votes_curve_has_the_snapshots_that_are_named(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], trained: Run, truth: Array, tmp_path: Path
) -> None:
    fixed = ("train.epochs=3", "train.from=", "train.snapshot_every=2", "neighbors.vote_epochs=[2]")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    found = evaluate_run(run.config)
    votes = [
        map_arrays(run.store, run.vote(s).file(unit))["vote"] for s in run.voted[:1] for unit in run.vote(s).units()
    ]
    clean = run.catalog.label == truth
    expected = {2: roc_auc_score(clean, np.concatenate(votes)), 3: roc_auc_score(clean, table_of(run)["score_vote"])}
    assert_quality(found, "vote", expected)
    assert table_of(run).equals(table_of(trained))


@pytest.fixture(scope="module")
def influenced(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A trained run with influence at each of its two snapshots."""
    train = ("train.epochs=3", "train.from=", "train.snapshot_every=2", "simulated_loss.average=2")
    influence = ("influence.validation=split", "influence.validation_num=2", "influence.epochs=[2]")
    names = "scores=[loss, osm, osd, odd]"
    return finish(tiny_config(tmp_path_factory.mktemp("influenced") / "run", *train, *influence, names))


@pytest.mark.parametrize("name", ["osm", "osd"])
def test_influence_curves(name: str, influenced: Run) -> None:
    found, clean = evaluate_run(influenced.config), influenced.catalog.label == read_truth(influenced.catalog)
    reader = influenced.added["influence"].reader
    scores = [found[name] for _, found in reader.courses(influenced.catalog.num_rows)]
    np.testing.assert_array_equal(scores[1], np.concatenate([reader.read(block).scores[name] for block in range(3)]))
    assert_quality(found, name, {e: roc_auc_score(clean, s) for e, s in zip((2, 3), scores, strict=True)})
    np.testing.assert_allclose(table_of(influenced)[f"score_{name}"].to_numpy(), scores[1], rtol=1e-6)


def test_odds_curve_passes_through_its_epoch(influenced: Run) -> None:
    found, clean = (
        evaluate_run(influenced.config).scores["odd"],
        influenced.catalog.label == read_truth(influenced.catalog),
    )
    losses = [loss for loss, _, _ in epochs_of(influenced)]
    means = [losses[0], (losses[0] + losses[1]) / 2, (losses[1] + losses[2]) / 2]
    expected = [roc_auc_score(clean, -mean) for mean in means]
    np.testing.assert_allclose([found.curve[epoch] for epoch in (1, 2, 3)], expected, rtol=0, atol=1e-12)
    assert influenced.config.simulated_loss.epoch_of(3) == 1
    assert found.final == found.curve[1]


def test_the_tables_own_figures(trained: Run, truth: Array, evaluation: Evaluation) -> None:
    rows = table_of(trained).to_pandas()
    clean = (rows["given_label"] == truth).to_numpy()
    flagged, found = rows["is_label_issue"].to_numpy(), evaluation.label_score
    assert found["auroc"] == pytest.approx(roc_auc_score(clean, rows["label_score"]))
    assert found["average_precision"] == pytest.approx(average_precision_score(~clean, -rows["label_score"]))
    assert (found["num_flagged"], found["num_wrong"]) == (flagged.sum(), (~clean).sum())
    if flagged.any():
        assert found["precision"] == pytest.approx(precision_score(~clean, flagged))
    assert found["recall"] == pytest.approx(recall_score(~clean, flagged))
    assert found["f1"] == pytest.approx(f1_score(~clean, flagged))
    right = (rows["predicted_label"] == truth).to_numpy()
    assert evaluation.predicted_right == pytest.approx(
        {"all": right.mean(), "truly_wrong": right[~clean].mean(), "given_right": clean.mean()}
    )
    assert evaluation.true_noise_rate == pytest.approx((~clean).mean())
    assert evaluation.estimated_noise_rate == pytest.approx((1 - rows["label_score"].astype(float)).mean())
    assert evaluation.rows == len(rows)


def test_the_result_is_plain_values(evaluation: Evaluation) -> None:
    found = json.loads(json.dumps(evaluation.to_json()))
    assert found["scores"]["iofm"]["final"] == evaluation.scores["iofm"].final


def test_undefined_scores_are_left_out() -> None:
    clean = np.array([True, False, True, False])
    assert auroc(np.array([0.9, 0.1, np.nan, np.nan]), clean) == 1.0
    assert math.isnan(auroc(np.array([0.9, np.nan, 0.2, np.nan]), clean))


def test_a_run_without_epochs(scored: Run) -> None:
    found = evaluate_run(scored.config)
    assert set(found.scores) == set(scored.config.score_names())
    assert {tuple(quality.curve) for quality in found.scores.values()} == {(0,)}
    clean = scored.catalog.label == read_truth(scored.catalog)
    for name, quality in found.scores.items():
        assert quality.final == pytest.approx(roc_auc_score(clean, table_of(scored)[f"score_{name}"].to_numpy()))


def test_rows_without_truth_do_not_count(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], write_tiny: Callable[..., str], tmp_path: Path
) -> None:
    given, known = [i % 3 for i in range(30)], [None if i % 5 == 0 else (i + i % 2) % 3 for i in range(30)]
    samples = [
        [*sample(f"k{i:02d}", label, i), (f"k{i:02d}.json", json.dumps({"truth": true}).encode())]
        for i, (label, true) in enumerate(zip(given, known, strict=True))
    ]
    pattern = write_tiny(tmp_path / "shards", samples, (11,))
    run = finish(tiny_config(tmp_path / "run", f"data.shards={pattern}"))
    assert read_truth(run.catalog).tolist() == [UNKNOWN if true is None else true for true in known]
    found = evaluate_run(run.config)
    assert found.rows == 24
    kept = np.array([true is not None for true in known])
    clean = np.array([label == true for label, true in zip(given, known, strict=True)])[kept]
    scores = table_of(run)["score_iofm"].to_numpy()[kept]
    assert found.scores["iofm"].final == pytest.approx(roc_auc_score(clean, scores))


def test_rows_of_none_of_the_classes_are_wrong(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], write_tiny: Callable[..., str], tmp_path: Path
) -> None:
    given = [i % 3 for i in range(30)]
    known = [None if i % 5 == 0 else NONE_OF_CLASSES if i % 3 == 1 else label for i, label in enumerate(given)]
    samples = [
        [*sample(f"k{i:02d}", label, i), (f"k{i:02d}.json", json.dumps({"truth": true}).encode())]
        for i, (label, true) in enumerate(zip(given, known, strict=True))
    ]
    run = finish(tiny_config(tmp_path / "run", f"data.shards={write_tiny(tmp_path / 'shards', samples, (11,))}"))
    found = evaluate_run(run.config)
    rows = np.array([true is not None for true in known])
    clean, table = np.array([true != NONE_OF_CLASSES for true in known])[rows], table_of(run)
    assert found.rows == 24
    assert found.true_noise_rate == pytest.approx(1 / 3) == true_noise_rate(run) == read_some_truth_rate(run)
    assert found.label_score["auroc"] == pytest.approx(roc_auc_score(clean, table["label_score"].to_numpy()[rows]))
    predicted = table["predicted_label"].to_numpy()[rows]
    truth = np.array([true for true in known if true is not None])
    assert found.predicted_right["all"] == pytest.approx((predicted == truth).mean())
    assert found.predicted_right["truly_wrong"] == pytest.approx((predicted == truth)[~clean].mean())
    assert sum(each.rows * each.clean_share for each in found.reliability) == pytest.approx(clean.sum())


def read_some_truth_rate(run: Run) -> float | None:
    return read_some_truth(run.catalog, np.arange(3)).noise_rate


def test_without_truth_or_without_a_table_it_says_so(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], write_tiny: Callable[..., str], tmp_path: Path
) -> None:
    pattern = write_tiny(tmp_path / "shards", [sample(f"k{i}", i % 3, i) for i in range(12)], (5,))
    config = tiny_config(tmp_path / "run", f"data.shards={pattern}")
    with pytest.raises(InputError, match="no complete table"):
        evaluate_run(config)
    finish(config)
    with pytest.raises(InputError, match=r"data\.truth \(json:truth\) is set, but no sample has it"):
        evaluate_run(config)
    with pytest.raises(InputError, match=r"has no truth to compare with; set data\.truth"):
        evaluate_run(tiny_config(tmp_path / "run", f"data.shards={pattern}", "data.truth="))


def test_the_reliability_curve_has_all_rows(trained: Run, truth: Array, evaluation: Evaluation) -> None:
    assert sum(each.rows for each in evaluation.reliability) == len(truth)
    right = sum(each.rows * each.clean_share for each in evaluation.reliability)
    assert right == pytest.approx((trained.catalog.label == truth).sum())
    gaps = sum(each.rows * abs(each.clean_share - each.mean_score) for each in evaluation.reliability)
    assert evaluation.label_score["ece"] == pytest.approx(gaps / len(truth))


def test_pictures_are_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    paths = draw(evaluation, tmp_path / "pictures")
    assert [path.name for path in paths] == ["curves.png", "reliability.png", "odd.png"]
    for path in paths:
        assert Image.open(path).size[0] > 400
