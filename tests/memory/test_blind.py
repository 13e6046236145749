"""Beliefs that have not seen the labels, together and from users: what is worthless is left out, and said to be."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rayclean import LabelScorer
from rayclean.merge.joint import JointModel
from rayclean.merge.models import Fitted
from rayclean.merge.out_of_fold import Reference, fit_out_of_fold
from rayclean.schema import NO_LABEL, NONE_OF_CLASSES, Array
from rayclean.scores.blind import mixed

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_ROWS, NUM_CLASSES = 1000, 10


@pytest.fixture
def given() -> tuple[Array, Array, Array, Array]:
    """Labels of which a tenth are the next class, predictions and features that know the class, and the truth."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, NUM_CLASSES, NUM_ROWS)
    labels = np.where(rng.random(NUM_ROWS) < 0.1, (truth + 1) % NUM_CLASSES, truth)
    predictions = 0.5 * rng.dirichlet(np.full(NUM_CLASSES, 0.3), NUM_ROWS) + np.eye(NUM_CLASSES)[truth]
    features = rng.normal(size=(NUM_ROWS, 16)).astype(np.float32)
    features[:, :NUM_CLASSES] += 6 * np.eye(NUM_CLASSES)[truth]
    return labels, predictions / predictions.sum(axis=1, keepdims=True), features, truth


Given = tuple[Array, Array, Array, Array]


def fitted(sources: dict[str, Array], labels: Array, verified: Array | None = None) -> Fitted:
    nobody = np.full(len(labels), NO_LABEL)
    reference = Reference(tuple(sources), 2.0)
    return fit_out_of_fold(sources, labels, reference, False, nobody if verified is None else verified)


def model_of(found: Fitted) -> JointModel:
    assert isinstance(found.model, JointModel)
    return found.model


def test_a_worthless_source_is_left_out(given: Given) -> None:
    labels, predictions, _, _ = given
    found = fitted({"shuffled": predictions[::-1], "good": predictions}, labels)
    assert list(found.doubts) == ["shuffled"]
    assert "by chance" in found.doubts["shuffled"]
    assert found.doubts["shuffled"].endswith("it is left out")
    assert [name for name, _ in found.sources.blind] == ["good"]
    assert model_of(found).reliable
    alone = fitted({"good": predictions}, labels)
    assert alone.sources == found.sources
    np.testing.assert_allclose(model_of(found).transition, model_of(alone).transition)
    assert Fitted.from_json(json.loads(json.dumps(found.to_json()))).doubts == found.doubts


def test_where_all_are_worthless_nothing_is_relied_on(given: Given) -> None:
    labels, predictions, _, _ = given
    found = fitted({"one": predictions[::-1], "other": np.roll(predictions, 1, axis=0)}, labels)
    assert all(said.endswith("nothing that is said of the labels can be relied on") for said in found.doubts.values())
    assert not model_of(found).reliable
    assert "by chance" in model_of(found).reason


@pytest.mark.filterwarnings("error")
def test_a_model_of_some_rows_judges_all(given: Given) -> None:
    labels, predictions, _, truth = given
    some, sources = np.arange(NUM_ROWS) % 3 > 0, {"one": predictions, "other": predictions**0.5}
    whole = fitted(sources, labels)
    part = fitted({name: belief[some] for name, belief in sources.items()}, labels[some])
    assert model_of(part).num_rows == some.sum()
    scores = [model_of(found).posterior(mixed(sources, found.sources), labels).label_score for found in (whole, part)]
    assert np.abs(scores[0] - scores[1]).mean() < 0.05
    people = np.where(np.arange(NUM_ROWS) < 300, truth, NO_LABEL)
    heard = fitted({"one": predictions[some]}, labels[some], people[some])
    assert model_of(heard).noise != model_of(part).noise


@pytest.mark.filterwarnings("error")
def test_features_in_the_labels_order_raise_no_doubt(given: Given) -> None:
    labels, predictions, features, truth = given
    for arrays in ((predictions,), (predictions, features)):
        found = LabelScorer().fit_predictions(labels, *arrays)
        assert (found.summary_["reliable"], found.summary_["reason"]) == (True, "")
        assert found.summary_["noise_rate_low"] < (labels != truth).mean() < found.summary_["noise_rate_high"]
        assert roc_auc_score(labels == truth, found.labels_["label_score"].to_numpy()) > 0.98


@pytest.mark.parametrize("kind", ["permuted", "off by one row", "random"])
@pytest.mark.parametrize("score", ["joint", "loss"])
def test_features_in_another_order_are_left_out(given: Given, kind: str, score: str) -> None:
    labels, predictions, features, truth = given
    rng = np.random.default_rng(1)
    other = {
        "permuted": features[rng.permutation(NUM_ROWS)],
        "off by one row": np.roll(features, 1, axis=0),
        "random": rng.normal(size=features.shape),
    }[kind]
    with pytest.warns(UserWarning, match="features: near rows .* by chance .*left out") as caught:
        found = LabelScorer(merge={"score": score}).fit_predictions(labels, predictions, other)
    assert {warning.filename for warning in caught} == {__file__}, "it points at the call"
    without = LabelScorer(merge={"score": score}).fit_predictions(labels, predictions)
    np.testing.assert_array_equal(found.labels_["label_score"], without.labels_["label_score"])
    assert found.summary_["issues"] == without.summary_["issues"] < 2.5 * (labels != truth).sum()
    assert not any(found.labels_["neighbor_rows"].to_pylist())


def test_predictions_in_another_order_are_not_relied_on(given: Given) -> None:
    labels, predictions, _, _ = given
    for other in (predictions[::-1], np.roll(predictions, 1, axis=0), np.roll(predictions, 1, axis=1)):
        with pytest.warns(UserWarning, match="pred_probs: beliefs agree with"):
            found = LabelScorer().fit_predictions(labels, other)
        assert not found.summary_["reliable"]
        assert "by chance" in found.summary_["reason"]
        seen = LabelScorer().fit_predictions(labels, other, out_of_fold=False)
        assert not seen.summary_["reliable"]


def test_predictions_that_have_learned_the_labels_are_taken_so(given: Given) -> None:
    labels, predictions, features, _ = given
    learned = 0.2 * predictions + 0.8 * np.eye(NUM_CLASSES)[labels]
    with pytest.warns(UserWarning, match="pred_probs: .* have learned them; they are taken so") as caught:
        found = LabelScorer().fit_predictions(labels, learned, features)
    assert {warning.filename for warning in caught} == {__file__}, "it points at the call"
    assert "have learned them" in found.summary_["reason"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = LabelScorer().fit_predictions(labels, learned, features, out_of_fold=False)
    np.testing.assert_array_equal(found.labels_["label_score"], said.labels_["label_score"])
    assert found.summary_["noise_rate"] == said.summary_["noise_rate"]


@pytest.mark.filterwarnings("error")
def test_people_are_heard(given: Given) -> None:
    labels, predictions, _, truth = given
    by_position = {row: int(truth[row]) for row in range(100)} | {0: -2}
    found = LabelScorer().fit_predictions(labels, predictions, verified=by_position)
    array = np.where(np.arange(NUM_ROWS) < 100, truth, -1)
    array[0] = -2
    assert found.labels_.equals(LabelScorer().fit_predictions(labels, predictions, verified=array).labels_)
    first = found.labels_.slice(0, 100).to_pylist()
    assert first[0]["predicted_label"] == first[0]["verified_label"] == NONE_OF_CLASSES
    assert [row["predicted_label"] for row in first[1:]] == truth[1:100].tolist()
    assert [row["label_score"] for row in first[1:]] == (labels == truth)[1:100].tolist()
    assert (found.summary_["verified"], found.summary_["calibrated"]) == (100, "verified")
    assert all(isinstance(found.summary_[name], float) for name in ("noise_rate", "noise_rate_low", "noise_rate_high"))


@pytest.mark.parametrize(("num_rows", "num_classes"), [(1, 2), (2, 2), (3, 2), (6, 3), (6, 6)])
@pytest.mark.parametrize("out_of_fold", [True, False])
def test_few_predictions_are_scored(num_rows: int, num_classes: int, out_of_fold: bool) -> None:
    labels = np.arange(num_rows) % num_classes
    predictions = 0.1 / num_classes + 0.9 * np.eye(num_classes)[labels]
    features = 5 * np.eye(num_classes)[labels] + np.random.default_rng(0).normal(size=(num_rows, num_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        for arrays in ((predictions,), (predictions, features)):
            found = LabelScorer().fit_predictions(labels, *arrays, out_of_fold=out_of_fold)
            scores = found.labels_["label_score"].to_numpy()
            assert scores.shape == (num_rows,)
            assert ((scores >= 0) & (scores <= 1)).all()
