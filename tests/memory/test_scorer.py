"""LabelScorer: the numbers of a run, in an environment that has little, from images or from another model's output."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone

from rayclean import LabelScorer
from rayclean.config import Config
from rayclean.errors import ConfigError, InputError, UnitError
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.contents import read_table
from tests.holders import shuffled

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
SAME: dict[str, Any] = {
    "blocks": {"rows": 16, "pairs": 20, "index_rows": 9, "table_rows": 32},
    "score": {"precision": "float32", "batch_size": 16},
    "neighbors": {"vote_num": 4},
    "iofm": {"num": 4, "steps": 3},
}


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def arrays_of(run: Run) -> dict[str, Any]:
    """A run's samples as a notebook has them."""
    catalog = run.catalog
    shards = range(catalog.shards.num_rows)
    keys = [key for shard in shards for key in catalog.rows_of_shard(shard)["key"].to_pylist()]
    images = catalog.pixels(8, 1e6).read(np.arange(catalog.num_rows))
    return {"images": images, "labels": np.array(catalog.label), "num_classes": catalog.num_classes, "keys": keys}


def assert_same(scorer: LabelScorer, run: Run) -> None:
    """All columns but `shard`, which no array has: types, meanings, and the bytes of every value."""
    found, expected = (table.drop_columns("shard").combine_chunks() for table in (scorer.labels_, table_of(run)))
    assert [(field.name, field.type, field.metadata) for field in found.schema] == [
        (field.name, field.type, field.metadata) for field in expected.schema
    ]
    for name in found.column_names:
        assert bytes_of(found[name]) == bytes_of(expected[name]), name


def bytes_of(column: pa.ChunkedArray) -> tuple[list[bool], bytes | list[Any]]:
    """Where a column is null, and its values: numbers as they lie in memory, all else as Python has it."""
    if pa.types.is_floating(column.type):
        return column.is_null().to_pylist(), column.fill_null(0).to_numpy().tobytes()
    return column.is_null().to_pylist(), column.to_pylist()


def test_it_gives_a_runs_numbers_from_the_same_snapshot(
    tiny_config: Tiny, finish: Finish, tiny_snapshot: Path, tmp_path: Path
) -> None:
    names = ["loss", "margin", "iofm", "iofm_last", "inn", "vote", "osm", "osd"]
    inn = {"num": 3, "steps": 4, "features": "self"}
    fixed = [f"scores=[{', '.join(names)}]", "inn.num=3", "inn.steps=4", "inn.features=self"]
    run = finish(tiny_config(tmp_path / "run", *fixed, "influence.validation=split", "influence.validation_num=2"))
    held_out = run.derived["held_out"]
    verified = held_out.pixels(8, 1e6).read(np.arange(held_out.num_rows)), np.array(held_out.label)
    train = {"epochs": 0, "from": str(tiny_snapshot)}
    settings: dict[str, Any] = {**SAME, "inn": inn, "influence": {"validation_num": 10}, "train": train}
    scorer = LabelScorer({"width": 4}, names, device="cpu", **settings)
    assert_same(scorer.fit(**arrays_of(run), verified=verified), run)


def test_the_joint_model_is_a_runs(tiny_config: Tiny, finish: Finish, tiny_snapshot: Path, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[loss, iofm_last]", "merge.score=joint"))
    train = {"epochs": 0, "from": str(tiny_snapshot)}
    scorer = LabelScorer({"width": 4}, ["loss", "iofm_last"], **SAME, train=train, merge={"score": "joint"})
    assert_same(scorer.fit(**arrays_of(run)), run)


def test_inn_by_its_own_features_is_a_runs(
    tiny_config: Tiny, finish: Finish, tiny_snapshot: Path, tmp_path: Path
) -> None:
    fixed = ("scores=[loss, iofm_last, inn]", "inn.features=self", "inn.num=3", "inn.steps=2")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    inn, train = {"features": "self", "num": 3, "steps": 2}, {"epochs": 0, "from": str(tiny_snapshot)}
    scorer = LabelScorer({"width": 4}, ["loss", "iofm_last", "inn"], **SAME, train=train, inn=inn)
    assert_same(scorer.fit(**arrays_of(run)), run)


def test_a_fit_is_a_runs_training(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    names = ["loss", "ens_loss", "aum", "wrong_events", "iofm", "aum_excess", "odd", "loss_ce"]
    role = {"optimizer": "adamw", "lr": 0.001, "augment": "random_resized_crop"}
    train = {"epochs": 3, "snapshot_every": 2, "batch_size": 16, "precision": "float32", "roles": {"ce": role}}
    changes = ("train.epochs=3", "train.from=", "train.snapshot_every=2", f"train.roles.ce={role}")
    run = finish(tiny_config(tmp_path / "run", f"scores=[{', '.join(names)}]", *changes))
    scorer = LabelScorer({"width": 4}, names, device="cpu", **SAME, train=train).fit(**arrays_of(run))
    assert_same(scorer, run)


def small(rows: int = 60) -> tuple[Array, Array]:
    """Images of three classes, each brighter than the one before, and labels of which a fifth are wrong."""
    rng = np.random.default_rng(0)
    truth = np.arange(rows) % 3
    images = rng.integers(0, 100, (rows, 8, 8, 3)) + 50 * truth[:, None, None, None]
    return images.astype(np.uint8), np.where(rng.random(rows) < 0.2, (truth + 1) % 3, truth)


QUICK: dict[str, Any] = {"model": {"width": 2}, "device": "cpu", "train": {"epochs": 3, "snapshot_every": 1}}


def test_without_faiss_the_same_rows_are_near(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    scorer = LabelScorer(scores=["iofm", "inn", "vote"], inn={"features": "self"}, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = scorer.fit(*small()).labels_
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("rayclean.memory.run.FLAT_ROWS", 60)
    with pytest.warns(UserWarning, match="60 rows without FAISS: neighbours are searched flat") as caught:
        assert scorer.fit(*small()).labels_.equals(expected)
    assert {warning.filename for warning in caught} == {__file__}, "it points at the call"


def test_training_in_parts_is_training_at_once(one_thread: None) -> None:
    images, labels = small()
    scorer = LabelScorer(scores=["loss", "iofm", "aum_excess"], **QUICK)
    expected = scorer.fit(images, labels).labels_
    roles = {}
    for name in scorer.role_names:
        part = scorer.train(images, labels, name, after_epoch=lambda epoch, _: epoch < 2)
        assert (len(part.trajectories), part.state is None) == (2, False)
        assert scorer.train(images, labels, name, training=part) is part
        assert (len(part.trajectories), sorted(part.weights), part.state) == (3, [1, 2, 3], None)
        roles[name] = part
    assert scorer.fit(images, labels, roles=roles).labels_.equals(expected)
    assert "train" in scorer.seconds_


def test_a_training_that_does_not_fit_is_refused() -> None:
    images, labels = small()
    scorer = LabelScorer(scores=["loss"], **QUICK)
    with pytest.raises(ConfigError, match="role ce: there is none for these scores; roles: main"):
        scorer.train(images, labels, "ce")
    done = scorer.train(images, labels, "main")
    with pytest.raises(InputError, match="role main: trained on 60 samples, found 50"):
        scorer.fit(images[:50], labels[:50], roles={"main": done})
    with pytest.raises(InputError, match="role main: no weights of epochs"):
        scorer.fit(images, labels, roles={"main": replace(done, weights={3: done.weights[3]})})
    with pytest.raises(InputError, match=r"role main: 2 epochs of 3 .* no state to go on from"):
        scorer.fit(images, labels, roles={"main": replace(done, trajectories=done.trajectories[:2])})


def test_a_fitted_scorer_is_small_and_travels() -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 3
    scorer = LabelScorer(scores=["loss", "iofm"], **QUICK).fit(images, labels)
    data = pickle.dumps(scorer)
    assert len(data) < images.nbytes / 2
    copy = pickle.loads(data)
    assert copy.labels_.equals(scorer.labels_)
    for name in ("loss", "iofm"):
        for (epoch, values), (other, its) in zip(copy.score_epochs(name), scorer.score_epochs(name), strict=True):
            assert (epoch, values.tobytes()) == (other, its.tobytes())


def test_a_training_that_diverges_is_said_to() -> None:
    with pytest.raises(UnitError, match="training diverged"):
        LabelScorer(scores=["loss"], model={"width": 2}, device="cpu", train={"epochs": 2, "lr": 1e30}).fit(*small())


def test_it_is_cloned_and_changed_as_scikit_learn_does() -> None:
    scorer = LabelScorer({"width": 2}, ["loss"], device="cpu", seed=3, train={"epochs": 1}, merge={"score": "loss"})
    parameters = {"model": {"width": 2}, "scores": ["loss"], "device": "cpu", "seed": 3}
    assert scorer.get_params() == {**parameters, "train": {"epochs": 1}, "merge": {"score": "loss"}}
    fitted = scorer.fit(*small()).labels_
    copy = clone(scorer)
    assert copy.get_params() == scorer.get_params()
    assert not hasattr(copy, "labels_")
    assert copy.fit(*small()).labels_.equals(fitted)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        copy.set_params(train={"epoch": 2})
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        copy.set_params(trian={"epochs": 2})
    assert copy.get_params() == scorer.get_params()
    assert copy.set_params(seed=4, iofm={"num": 3}) is copy
    assert copy.get_params() == {**scorer.get_params(), "seed": 4, "iofm": {"num": 3}}
    assert not hasattr(copy, "labels_")
    assert not copy.fit(*small()).labels_.equals(fitted)
    assert repr(LabelScorer(seed=4, train={"epochs": 2})) == "LabelScorer(seed=4, train={'epochs': 2})"


def test_noise_on_purpose_is_refused_not_ignored() -> None:
    with pytest.raises(ConfigError, match="made wrong on purpose by runs"):
        LabelScorer(noise={"kind": "symmetric", "rate": 0.2})


def test_a_file_of_verified_labels_is_refused_not_ignored() -> None:
    with pytest.raises(ConfigError, match=r"merge\.verified"):
        LabelScorer(merge={"verified": "checked.csv"})


def test_a_notebook_keeps_its_own_settings_of_torch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads(), torch.get_rng_state()
    LabelScorer({"width": 2}, ["loss"], device="cpu", train={"epochs": 1}).fit(images, np.arange(20) % 3)
    after = torch.get_deterministic_debug_mode(), torch.get_num_threads(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert before[2].equal(after[2])


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is not there")
sys.meta_path.insert(0, Blocked())
import numpy as np
from rayclean import LabelScorer
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
labels = rng.integers(0, 3, 60)
scores = ["loss", "ens_loss", "aum", "iofm", "inn", "vote", "osm", "osd", "odd", "aum_excess", "loss_ce"]
train = dict(epochs=2, snapshot_every=1, batch_size=20)
scorer = LabelScorer(dict(width=2), scores, device="cpu", train=train, inn=dict(features="self", num=3, steps=2))
scorer.fit(images, labels, verified=(images[:6], labels[:6]))
assert np.isfinite(scorer.score_samples("iofm")).all()
LabelScorer().fit_predictions(np.array(["a", "b", "c"])[labels], np.eye(3)[labels], images.reshape(60, -1))
features = np.eye(3)[labels] + rng.normal(size=(60, 3))
LabelScorer(scores=["iofm_last", "inn", "vote", "osm", "odd"], device="cpu").fit_features(features, labels)
print(scorer.labels_.num_rows, sorted({{name.split(".")[0] for name in sys.modules}} & {blocked}))
"""


def test_it_needs_torch_numpy_scikit_learn_pyarrow_and_pydantic_alone() -> None:
    blocked = {"ray", "faiss", "webdataset", "yaml", "safetensors", "rich", "typer", "PIL", "torchvision", "psutil"}
    blocked |= {"xxhash", "fsspec", "braceexpand", "timm", "jinja2"}
    code = BLOCKED.format(blocked=blocked)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "60 []\n"


@pytest.fixture(scope="module")
def predictions() -> tuple[Array, Array, Array]:
    """(N,) labels, (N, K) probabilities that favour the true class, (N, d) features; one label in five is wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    labels = np.where(rng.random(300) < 0.2, (truth + 1) % 4, truth)
    features = np.eye(4)[truth] * 3 + rng.normal(size=(300, 4))
    odds = np.exp(np.eye(4)[truth] * 3 + rng.normal(size=(300, 4)))
    return labels, odds / odds.sum(axis=1, keepdims=True), features


def test_another_models_predictions_are_scored(predictions: tuple[Array, Array, Array]) -> None:
    labels, probabilities, features = predictions
    scorer = LabelScorer(merge={"score": "loss"}).fit_predictions(*predictions)
    at_label = probabilities[np.arange(len(labels)), labels]
    np.testing.assert_allclose(scorer.score_samples("loss"), np.log(at_label), rtol=1e-9)
    others = np.where(np.eye(4, dtype=bool)[labels], -np.inf, np.log(probabilities)).max(axis=1)
    np.testing.assert_allclose(scorer.score_samples("margin"), np.log(at_label) - others, rtol=1e-9)
    row = 7
    distance = ((features - features[row]) ** 2).sum(axis=1)
    near = np.argsort(distance)[1:31]
    assert scorer.score_samples("vote")[row] == pytest.approx((labels[near] == labels[row]).mean())
    assert scorer.labels_["neighbor_rows"][row].as_py() == near[:3].tolist()
    assert scorer.labels_["predicted_label"].to_pylist() == probabilities.argmax(axis=1).tolist()
    assert scorer.summary_["rows"] == 300


ARGUMENTS = ("labels", "pred_probs", "features")
HELD: dict[str, Callable[[Array, Array, Array], dict[str, Any]]] = {
    "lists": lambda y, p, f: {"labels": y.tolist(), "pred_probs": p.tolist(), "features": f.tolist()},
    "float labels": lambda y, p, f: {"labels": y.astype(np.float32), "pred_probs": p, "features": f},
    "torch": lambda y, p, f: dict(zip(ARGUMENTS, map(torch.from_numpy, (y, p, f)), strict=True)),
    "arrow": lambda y, p, f: {"labels": pa.array(y), "pred_probs": pa.array(p.tolist()), "features": f},
    "pandas": lambda y, p, f: dict(zip(ARGUMENTS, map(shuffled, (y, p, f)), strict=True)),
    "names": lambda y, p, f: {"labels": np.array(["a", "b", "c", "d"])[y], "pred_probs": p, "features": f},
    "larger features": lambda y, p, f: {"labels": y, "pred_probs": p, "features": f * 2.0**30},
    "logarithms": lambda y, p, f: {"labels": y, "pred_probs": np.log(p), "features": f, "logits": True},
}


@pytest.mark.parametrize("hold", HELD.values(), ids=HELD.keys())
def test_predictions_are_scored_the_same_whatever_holds_them(
    hold: Callable[..., dict[str, Any]], predictions: tuple[Array, Array, Array]
) -> None:
    expected = LabelScorer().fit_predictions(*predictions).labels_
    given = hold(*predictions)
    found = LabelScorer().fit_predictions(**given).labels_
    if not given.get("logits"):  # their softmax differs in the last digit
        assert found.equals(expected, check_metadata=True)
    for name in ("given_label", "predicted_label", "neighbor_rows"):
        assert found[name].to_pylist() == expected[name].to_pylist()


def test_names_of_classes_are_in_the_order_of_the_columns(predictions: tuple[Array, Array, Array]) -> None:
    labels, probabilities, _ = predictions
    names, order = np.array(["cat", "ant", "dog", "bee"]), [1, 3, 0, 2]
    expected = LabelScorer().fit_predictions(labels, probabilities, classes=names)
    assert expected.classes_ == names.tolist()
    assert LabelScorer().fit_predictions(names[labels], probabilities, classes=names).labels_.equals(expected.labels_)
    by_name = LabelScorer().fit_predictions(names[labels], probabilities[:, order])
    assert by_name.classes_ == sorted(names.tolist())
    for name in ("given_label", "predicted_label"):
        found = [by_name.classes_[label] for label in by_name.labels_[name].to_pylist()]
        assert found == [expected.classes_[label] for label in expected.labels_[name].to_pylist()]


def test_images_with_names_of_classes_are_scored_as_with_numbers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 3
    fitted = [
        LabelScorer({"width": 2}, ["loss"], device="cpu", train={"epochs": 1}).fit(pixels, given)
        for pixels, given in ((images, labels), (list(images), shuffled(np.array(["ant", "bee", "cat"])[labels])))
    ]
    assert [scorer.classes_ for scorer in fitted] == [["0", "1", "2"], ["ant", "bee", "cat"]]
    assert fitted[0].labels_.equals(fitted[1].labels_)


def test_features_that_tell_nothing_apart_are_left_out(predictions: tuple[Array, Array, Array]) -> None:
    labels, probabilities, features = predictions
    expected = LabelScorer().fit_predictions(labels, probabilities).labels_
    with pytest.warns(UserWarning, match="all rows are equal"):
        assert LabelScorer().fit_predictions(labels, probabilities, features * 0).labels_.equals(expected)


def test_a_certain_prediction_of_another_class_is_finite() -> None:
    scorer = LabelScorer(scores=["loss"]).fit_predictions(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert np.isfinite(scorer.score_samples("loss")).all()


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros(2, int), "uint8 expected, found .* float64"),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros(2, int), "found .2, 4, 5, 3."),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), r"labels: \(2,\) expected, .* found 3"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1.5]), "found 1.5 at position 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, -1]), "found -1"),
    ],
)
def test_arrays_that_do_not_fit(images: Array, labels: Array, said: str) -> None:
    with pytest.raises(InputError, match=said):
        LabelScorer().fit(images, labels)


def test_a_network_for_other_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="size is 8, but images are 4 px"):
        LabelScorer(model={"width": 2, "size": 8}).fit(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]))


def test_curves_end_in_the_scores(trained: Run) -> None:
    names = ["loss", "ens_loss", "iofm", "iofm_last", "odd"]
    scorer = LabelScorer({"width": 4}, names, train={"epochs": 3, "snapshot_every": 2, "batch_size": 16})
    scorer.fit(**arrays_of(trained))
    curves = {name: dict(scorer.score_epochs(name)) for name in names}
    assert [list(curves[name]) for name in names] == [[1, 2, 3], [1, 2, 3], [2, 3], [2, 3], [1, 2, 3]]
    np.testing.assert_allclose(
        curves["ens_loss"][3], np.mean([curves["loss"][e] for e in (1, 2, 3)], axis=0), rtol=1e-6
    )
    np.testing.assert_allclose(curves["iofm"][3], (curves["iofm_last"][2] + curves["iofm_last"][3]) / 2, rtol=1e-12)
    for name, last in zip(names, (3, 3, 3, 3, 1), strict=True):  # ODD's own epoch is .4 of them
        np.testing.assert_allclose(curves[name][last], scorer.score_samples(name), rtol=0, atol=1e-12)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="unknown field; did you mean 'epochs'"):
        LabelScorer(train={"epoch": 3})
    with pytest.raises(ConfigError, match="unknown score"):
        LabelScorer(scores=["iofn"])
    with pytest.raises(ConfigError, match="predictions give loss, margin"):
        LabelScorer(scores=["iofm"]).fit_predictions(np.zeros(2, int), np.full((2, 2), 0.5))
    with pytest.raises(ConfigError, match="osd needs verified samples: fit"):
        LabelScorer(scores=["osd"]).fit(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, int))
    with pytest.raises(ConfigError, match="'aum' was not computed"):
        LabelScorer().score_samples("aum")
