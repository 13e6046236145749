"""The peers: no network predicts rows that it saw, threshold samples differ by training, what is kept is not redone."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import TrainSection
from rayclean.config.load import dump_config
from rayclean.errors import InputError, RaycleanError
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from rayclean.schema import Array
from rayclean.train.augment import normalize
from rayclean.train.forward import ForwardSettings
from rayclean.train.spec import NetworkSpec
from tools.cells import peers_training, run_peers
from tools.cells.peers_training import (
    FOLDS,
    Setup,
    gathered,
    held_out_rows,
    peer_package,
    predict_held_out,
    threshold_excess,
    train_thresholded,
)
from tools.cells.run_peers import METHODS, PEERS, judge, parts_of, run_cell, table

CLASSES = 3
EPOCHS = 2

pytestmark = pytest.mark.usefixtures("one_thread")


def make_setup(num_rows: int = 45, epochs: int = EPOCHS) -> Setup:
    """Images of three colours with some noise, all labels right."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_rows) % CLASSES
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
    pixels = (colours[labels][:, None, None] + rng.integers(-30, 31, (num_rows, 8, 8, 3))).astype(np.uint8)
    spec = NetworkSpec("small_resnet", CLASSES, 4, None, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Setup(
        inputs=normalize(torch.from_numpy(pixels), spec.mean, spec.std).permute(0, 2, 3, 1),
        labels=labels,
        draws=rng.integers(0, 2**64, num_rows, dtype=np.uint64),
        spec=spec,
        train=TrainSection(epochs=epochs, batch_size=12, lr=0.05),
        weights=None,
        precision="float32",
        forward=ForwardSettings("cpu", "float32", 16),
        seed=0,
        data="made",
    )


class PlainCalculator:
    """What `aum.AUMCalculator` does, by its definition."""

    def __init__(self, _: str) -> None:
        self.margins: dict[int, list[float]] = defaultdict(list)
        self.targets: dict[int, set[int]] = defaultdict(set)

    def update(self, logits: torch.Tensor, targets: torch.Tensor, ids: list[int]) -> dict[int, SimpleNamespace]:
        for z, y, row in zip(logits.tolist(), targets.tolist(), ids, strict=True):
            self.margins[row].append(z[y] - max(z[:y] + z[y + 1 :]))
            self.targets[row].add(y)
        return {row: SimpleNamespace(aum=float(np.mean(self.margins[row]))) for row in ids}


def plain_quality(labels: Array, probabilities: Array, method: str) -> Array:
    """What `cleanlab.rank.get_label_quality_scores` does, by its definition."""
    own = probabilities[np.arange(len(labels)), labels]
    if method == "self_confidence":
        return own
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return np.asarray((own - others.max(axis=1) + 1) / 2)


@pytest.fixture
def plain_peers(monkeypatch: pytest.MonkeyPatch) -> list[PlainCalculator]:
    """Stands in for both packages; returns the calculators that are made."""
    made: list[PlainCalculator] = []

    def calculator(folder: str) -> PlainCalculator:
        made.append(PlainCalculator(folder))
        return made[-1]

    both = SimpleNamespace(AUMCalculator=calculator, get_label_quality_scores=plain_quality)
    for module in (peers_training, run_peers):
        monkeypatch.setattr(module, "peer_package", lambda name: both)
    return made


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("this is not to be done again")


@given(st.lists(st.integers(0, 2), min_size=30, max_size=80), st.integers(0, 2**63 - 1))
def test_folds_hold_out_every_row_once_and_share_the_classes(tail: list[int], seed: int) -> None:
    labels = np.array([*range(CLASSES)] * FOLDS + tail)
    folds = held_out_rows(labels, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(len(labels)))
    counts = np.stack([np.bincount(labels[held], minlength=CLASSES) for held in folds])
    assert (np.ptp(counts, axis=0) <= 1).all()


@pytest.mark.parametrize("loss", ["ce", "mixup"])
def test_a_prediction_knows_the_labels_of_all_other_rows_and_not_its_own(loss: str) -> None:
    setup, held = make_setup(), np.arange(9)

    def logits(changed: int) -> Array:
        labels = setup.labels.copy()
        labels[changed] = (labels[changed] + 1) % CLASSES
        return predict_held_out(replace(setup, labels=labels), loss, EPOCHS, held, "part")["logits"]

    np.testing.assert_array_equal(logits(0), logits(5))
    assert (logits(0) != logits(20)).any()


@pytest.mark.parametrize("loss", ["ce", "mixup"])
def test_colours_are_learnt(loss: str) -> None:
    setup, held = make_setup(), np.arange(15)
    logits = predict_held_out(setup, loss, 8, held, "part")["logits"]
    assert (logits.argmax(axis=1) == setup.labels[held]).mean() > 0.9


def test_logits_of_the_folds_come_back_in_the_order_of_the_rows() -> None:
    folds = held_out_rows(make_setup().labels, seed=3)
    logits = gathered([{"rows": held, "logits": np.stack([held, -held], axis=1)} for held in folds])
    np.testing.assert_array_equal(logits, np.stack([np.arange(45.0), -np.arange(45.0)], axis=1))


def test_a_training_draws_by_its_name() -> None:
    setup, held = make_setup(), np.arange(9)
    torch.manual_seed(1)
    once, other = (predict_held_out(setup, "mixup", 1, held, name)["logits"] for name in ("one", "other"))
    np.testing.assert_array_equal(once, predict_held_out(setup, "mixup", 1, held, "one")["logits"])
    assert (once != other).any()


def test_each_row_is_watched_under_its_own_label_or_the_class_of_threshold_samples(
    plain_peers: list[PlainCalculator],
) -> None:
    setup = make_setup(60)
    found = [train_thresholded(setup, EPOCHS, part, f"aum-{part}") for part in range(2)]
    for part, calculator in zip(found, plain_peers, strict=True):
        assert 60 / 4 / 3 < part["drawn"].sum() < 60 / 4 * 2  # N / (K + 1) expected
        expected = np.where(part["drawn"], CLASSES, setup.labels)
        assert calculator.targets == {row: {label} for row, label in enumerate(expected.tolist())}
        assert {len(margins) for margins in calculator.margins.values()} == {EPOCHS}
        np.testing.assert_allclose(part["aum"], [np.mean(calculator.margins[row]) for row in range(60)])
    assert not (found[0]["drawn"] & found[1]["drawn"]).any()


def test_the_package_aum_gives_the_mean_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aum")
    setup = make_setup()
    found = train_thresholded(setup, EPOCHS, 0, "aum-1")
    monkeypatch.setattr(peers_training, "peer_package", lambda _: SimpleNamespace(AUMCalculator=PlainCalculator))
    plain = train_thresholded(setup, EPOCHS, 0, "aum-1")
    np.testing.assert_array_equal(found["drawn"], plain["drawn"])
    np.testing.assert_allclose(found["aum"], plain["aum"], atol=1e-5)  # its margins are in float32


@given(st.integers(0, 1000), st.integers(8, 60))
def test_the_excess_equals_the_plain_formula(seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    aum, place = rng.normal(size=(2, num_rows)), rng.permutation(num_rows) % 4
    drawn = np.stack([place == 0, place == 1])
    found = threshold_excess(aum, drawn)
    for row in range(num_rows):
        above = [aum[r, row] - np.percentile(aum[r, drawn[r]], 99) for r in range(2) if not drawn[r, row]]
        assert found[row] == pytest.approx(sum(above) / len(above), abs=1e-12)


def test_a_row_that_is_always_a_threshold_sample_has_no_excess() -> None:
    found = threshold_excess(np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[True, False], [True, False]]))
    assert np.isnan(found[0])
    assert found[1] == 1.5


def sure_parts(setup: Setup, predicted: Array) -> list[dict[str, Array]]:
    """Out-of-sample logits that are sure of a class."""
    return [
        {"rows": held, "logits": 9 * np.eye(CLASSES, dtype=np.float32)[predicted[held]], "seconds": np.array(2.0)}
        for held in held_out_rows(setup.labels, setup.seed)
    ]


def wrong_in_part(setup: Setup) -> tuple[Setup, Array]:
    """The same rows, of which six have wrong labels, and the truth."""
    given = setup.labels.copy()
    given[:6] = (given[:6] + 1) % CLASSES
    return replace(setup, labels=given), setup.labels


def test_predictions_that_are_the_truth_find_all_wrong_labels(plain_peers: list[PlainCalculator]) -> None:
    setup, truth = wrong_in_part(make_setup())
    result = judge(setup, "cleanlab_ce", parts_of(setup, "cleanlab_ce"), sure_parts(setup, truth), truth)
    assert result["scores"] == {name: {"auroc": 1.0, "average_precision": 1.0} for name in METHODS}
    assert result["predicted_right"] == {"all": 1.0, "truly_wrong": 1.0}
    assert result["seconds"] == 10.0


def test_rows_without_a_truth_do_not_count(plain_peers: list[PlainCalculator]) -> None:
    setup, truth = wrong_in_part(make_setup())
    predicted = truth.copy()
    predicted[40:] = (setup.labels[40:] + 1) % CLASSES  # of right labels, which then look wrong
    known = np.where(np.arange(len(truth)) < 40, truth, -1)
    parts = parts_of(setup, "cleanlab_ce")
    assert judge(setup, "cleanlab_ce", parts, sure_parts(setup, predicted), truth)["scores"][METHODS[0]]["auroc"] < 1
    assert judge(setup, "cleanlab_ce", parts, sure_parts(setup, predicted), known)["scores"][METHODS[0]]["auroc"] == 1


def test_the_package_cleanlab_gives_the_plain_scores() -> None:
    rank = pytest.importorskip("cleanlab.rank")
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    for method in METHODS:
        found = rank.get_label_quality_scores(labels, probabilities, method=method)
        np.testing.assert_allclose(found, plain_quality(labels, probabilities, method), atol=1e-12)


@pytest.mark.parametrize(
    ("peer", "epochs", "predictions"),
    [("cleanlab_ce", 4 * 5, 1), ("cleanlab_mixup", 4 * 10, 1), ("aum", 2 * 10, 0)],
)
def test_epochs_over_all_rows(peer: str, epochs: float, predictions: float) -> None:
    parts = parts_of(make_setup(epochs=10), peer)
    assert sum(part.epochs for part in parts) == pytest.approx(epochs)
    assert sum(part.predictions for part in parts) == pytest.approx(predictions)


def test_what_is_kept_is_not_trained_again(
    plain_peers: list[PlainCalculator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup, truth = wrong_in_part(make_setup())
    monkeypatch.setattr(run_peers, "open_cell", lambda name: (setup, truth))
    for folder in ("RESULTS", "PARTS"):
        monkeypatch.setattr(run_peers, folder, tmp_path / folder)
    file = tmp_path / "RESULTS" / "human.json"
    run_cell("human", ["aum"])
    assert list(json.loads(file.read_text())["peers"]) == ["aum"]
    run_cell("human", PEERS)
    complete = json.loads(file.read_text())
    assert set(complete["peers"]) == set(PEERS)
    assert complete["rows"] == len(truth)
    assert complete["true_noise_rate"] == pytest.approx(6 / len(truth))
    monkeypatch.setattr(peers_training, "train_network", refuse)
    file.unlink()
    run_cell("human", PEERS)
    assert json.loads(file.read_text()) == complete
    monkeypatch.setattr(run_peers, "open_cell", refuse)
    run_cell("human", PEERS)
    file.unlink()
    changed = replace(setup, train=setup.train.model_copy(update={"lr": 0.01}))
    monkeypatch.setattr(run_peers, "open_cell", lambda name: (changed, truth))
    with pytest.raises(AssertionError, match="not to be done again"):
        run_cell("human", ["aum"])


def test_a_peer_that_is_not_installed_is_named() -> None:
    with pytest.raises(RaycleanError, match=r"no_such_peer cannot be imported.*pip install -e \.\[peers\]"):
        peer_package("no_such_peer")


def test_a_cell_that_was_never_started_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_peers, "RUNS", tmp_path)
    with pytest.raises(InputError, match=r"holds no run of cell human; start it with tools/cells/run.py human"):
        run_peers.open_cell("human")


def test_a_cells_run_says_what_to_train_on(scored: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(scored.config.run.dir, tmp_path / "human")
    (tmp_path / "human" / CONFIG_FILE).write_text(yaml.safe_dump(dump_config(scored.config)))
    monkeypatch.setattr(run_peers, "RUNS", tmp_path)
    setup, truth = run_peers.open_cell("human")
    np.testing.assert_array_equal(setup.labels, scored.catalog.label)
    assert setup.spec == scored.network.spec
    assert setup.train == scored.config.train
    pixels = scored.catalog.pixels(8, 1e6).read(np.array([5]))
    mean, std = (np.array(values) for values in (setup.spec.mean, setup.spec.std))
    np.testing.assert_allclose(setup.inputs[5].cpu(), (pixels[0] / 255 - mean) / std, atol=1e-5)
    assert truth.shape == setup.labels.shape
    assert 0 < (truth != setup.labels).mean() < 0.5


def test_the_table_has_a_row_a_score_and_a_column_a_cell() -> None:
    def peer(*qualities: float, **more: Any) -> dict[str, Any]:
        names = ("excess",) if len(qualities) == 1 else METHODS
        scores = {
            name: {"auroc": value, "average_precision": 0.5} for name, value in zip(names, qualities, strict=True)
        }
        return {"epochs": 80.0, "forward_equivalents": 241.0, "seconds": 99.6, "scores": scores, **more}

    results = [
        {"cell": "one", "true_noise_rate": 0.3, "peers": {"aum": peer(0.9)}},
        {"cell": "two", "true_noise_rate": 0.4, "peers": {"cleanlab_ce": peer(1.0, 0.8, predicted_right={"all": 0.7})}},
    ]
    assert table(results) == [
        "| peer | one | two |",
        "|---|---|---|",
        "| cleanlab_ce self_confidence |  | 1.000 (.500) |",
        "| cleanlab_ce normalized_margin |  | .800 (.500) |",
        "| aum excess | .900 (.500) |  |",
        "| cleanlab_ce, predicted right |  | .700 |",
        "| cleanlab_ce, cost |  | 80 epochs, 241 forwards, 100 s |",
        "| aum, cost | 80 epochs, 241 forwards, 100 s |  |",
        "| *wrong labels* | .300 | .400 |",
    ]
