"""Ways of judging labels: what is measured is what users get, probabilities are out of fold, the oracle is one."""

from __future__ import annotations

import numpy as np
import pytest

from rayclean.evaluate.metrics import auroc
from rayclean.memory.scorer import LabelScorer
from rayclean.schema import DROPPED, NO_LABEL
from tools.cells.honest_data import Rows
from tools.cells.honest_steps import Judged
from tools.cells.honest_ways import ByFeatures, ByPredictions, logistic_beliefs, oracle

CLASSES = 3

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Three clouds of features; a quarter of the labels is wrong, one row is of no class."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, 240)
    features = np.eye(CLASSES, 6)[truth] * 4 + rng.normal(size=(240, 6))
    labels = np.where(rng.random(240) < 0.25, rng.integers(0, CLASSES, 240), truth)
    truth[0] = -1
    return Rows(labels, truth, CLASSES, features.astype(np.float32))


def test_what_is_measured_of_features_is_what_the_scorer_gives(rows: Rows) -> None:
    verified = np.full(len(rows.labels), NO_LABEL)
    verified[:40] = np.where(rows.truth < 0, DROPPED, rows.truth)[:40]
    scorer = LabelScorer(seed=3, device="cpu")
    scorer.fit_features(rows.inputs, rows.labels, num_classes=CLASSES, verified=verified)
    found, expected = ByFeatures(rows, seed=3).judge(verified), Judged(scorer.labels_, scorer.summary_)
    np.testing.assert_array_equal(found.right, expected.right)
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    assert found.summary == expected.summary
    assert set(found.scores) == set(expected.scores)
    for name, values in expected.scores.items():
        np.testing.assert_array_equal(found.scores[name], values)


def test_predictions_are_judged_as_they_are(rows: Rows) -> None:
    belief = np.exp(rows.inputs[:, :CLASSES].astype(np.float64))
    belief /= belief.sum(axis=1, keepdims=True)
    way = ByPredictions(Rows(rows.labels, rows.truth, CLASSES, belief), seed=0)
    found = way.judge(np.full(len(rows.labels), NO_LABEL))
    assert auroc(found.right, rows.clean) > 0.9
    for num_verified in (0, 40):
        verified = np.where(
            np.arange(len(rows.labels)) < num_verified, np.where(rows.truth < 0, DROPPED, rows.truth), -1
        )
        scorer = LabelScorer(seed=0).fit_predictions(rows.labels, belief, verified=verified)
        assert way.judge(verified).table.equals(scorer.labels_)
        assert way.judge(verified).summary == scorer.summary_
    assert set(found.scores) == {"loss", "margin"}
    np.testing.assert_allclose(way.probabilities()["predictions"][0], belief)


def test_the_regression_of_a_fold_has_not_seen_its_labels(rows: Rows) -> None:
    folds = np.arange(len(rows.labels)) % 5
    others = Rows(np.where(folds == 0, (rows.labels + 1) % CLASSES, rows.labels), rows.truth, CLASSES, rows.inputs)
    found, converged = logistic_beliefs(rows, folds)
    changed, _ = logistic_beliefs(others, folds)
    assert converged
    np.testing.assert_array_equal(found[folds == 0], changed[folds == 0])
    assert (found[folds == 1] != changed[folds == 1]).any()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_class_that_a_fold_alone_has_gets_no_probability_there(rows: Rows) -> None:
    folds = np.where(rows.labels == 2, 0, 1 + np.arange(len(rows.labels)) % 2)
    found, _ = logistic_beliefs(rows, folds)
    assert not found[folds == 0, 2].any()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_the_oracle_knows_how_labels_go_wrong_and_not_whether_a_row_does() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, 900)
    labels = np.where((truth == 0) & (rng.random(900) < 0.4), 1, truth)  # 0 is often called 1, nothing else is wrong
    belief = np.full((900, CLASSES), 0.1)
    belief[np.arange(900), truth] = 0.8
    right, likeliest = oracle(belief, Rows(labels, truth, CLASSES, belief), seed=0)
    assert auroc(right, labels == truth) == 1
    np.testing.assert_array_equal(likeliest, truth)
    blank = np.full((900, CLASSES), 1 / CLASSES)
    right, _ = oracle(blank, Rows(labels, truth, CLASSES, blank), seed=0)
    assert len(np.unique(right)) <= 2 * CLASSES  # of rows that look alike it knows the labels alone
