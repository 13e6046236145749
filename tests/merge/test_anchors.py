"""The joint model of beliefs that have seen the labels: what it finds in made labels, and what it must survive."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rayclean.evaluate.metrics import expected_calibration_error
from rayclean.merge.anchors import fit_joint
from rayclean.merge.joint import JointModel
from rayclean.merge.models import Fitted
from rayclean.merge.near import Near
from rayclean.schema import Array
from tests.merge.beliefs import made, next_class, symmetric


@pytest.mark.parametrize(("num_classes", "noise"), [(2, symmetric), (10, symmetric), (10, next_class)])
def test_it_beats_the_belief_in_the_given_label(num_classes: int, noise: Callable[[int, float], Array]) -> None:
    beliefs, labels, truth = made(4000, noise(num_classes, 0.3))
    clean = labels == truth
    found = fit_joint(beliefs, labels).posterior(beliefs, labels)
    alone = roc_auc_score(clean, beliefs[np.arange(4000), labels])
    assert roc_auc_score(clean, found.label_score) > alone - 0.001
    assert (found.predicted == truth).mean() > max((beliefs.argmax(axis=1) == truth).mean(), clean.mean())


def test_the_transition_is_found() -> None:
    expected = next_class(6, 0.25)
    model = fit_joint(*made(20_000, expected, sure=2.5)[:2])
    np.testing.assert_allclose(model.transition.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(model.transition, expected, atol=0.04)
    np.testing.assert_allclose(model.prior, 1 / 6, atol=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from(["random", "constant", "certain", "zero"]), st.integers())
def test_whatever_comes_gives_probabilities(num_rows: int, num_classes: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed % 2**32)
    labels = rng.integers(0, num_classes, num_rows)
    beliefs = {
        "random": rng.dirichlet(np.ones(num_classes), num_rows),
        "constant": np.full((num_rows, num_classes), 1 / num_classes),
        "certain": np.eye(num_classes)[rng.integers(0, num_classes, num_rows)],
        "zero": np.zeros((num_rows, num_classes)),
    }[kind]
    model = fit_joint(beliefs, labels)
    assert (model.transition > 0).all() or num_classes == 1
    found = model.posterior(beliefs, labels)
    assert ((found.label_score >= 0) & (found.label_score <= 1)).all()
    assert ((found.predicted_score > 0) & (found.predicted_score <= 1)).all()
    again = Fitted.from_json(json.loads(json.dumps(Fitted("joint", model).to_json())))
    assert again.sources == model.sources
    assert isinstance(again.model, JointModel)
    assert again.model.posterior(beliefs, labels).label_score.tobytes() == found.label_score.tobytes()


def leaning(pull: float, num_neighbors: int) -> tuple[Array, Array, Array, Near]:
    """Beliefs that lean to the given label by `pull` in log units; neighbours are rows of the same class."""
    beliefs, labels, truth = made(6000, symmetric(8, 0.4))
    rows = np.arange(6000)
    beliefs[rows, labels] *= np.exp(pull)
    rng = np.random.default_rng(1)
    near = np.stack([rng.choice(np.flatnonzero(truth == k), num_neighbors) for k in truth])
    return beliefs, labels, truth, Near(beliefs, beliefs[near], labels, labels[near], labels[near])


def test_the_lean_is_what_neighbours_do_not_have() -> None:
    beliefs, labels, _, near = leaning(0.7, 3)
    model = fit_joint(beliefs, labels, near)
    own, other = (np.log(each + 1e-9) for each in (near.beliefs, near.neighbors))
    excess = own - other.mean(axis=1)
    at_label = excess[np.arange(6000), labels]
    expected = 2 * (at_label - (excess.sum(axis=1) - at_label) / 7).mean()
    assert model.lean == pytest.approx(expected, rel=1e-9)
    assert 0.4 < model.lean < 1.4
    assert fit_joint(beliefs, labels, leaning(0.0, 3)[3]).lean < 0.1


def test_the_lean_changes_what_label_score_says_and_not_its_order() -> None:
    beliefs, labels, truth, near = leaning(0.7, 3)
    with_lean, without = (fit_joint(beliefs, labels, each).posterior(beliefs, labels) for each in (near, None))
    clean = labels == truth
    areas = [roc_auc_score(clean, each.label_score) for each in (with_lean, without)]
    assert areas[0] == pytest.approx(areas[1], abs=1e-4)
    errors = [abs(float(1 - each.label_score.mean()) - (~clean).mean()) for each in (with_lean, without)]
    assert errors[0] < errors[1]


def test_rows_without_neighbours_have_no_lean() -> None:
    beliefs, labels, _ = made(50, symmetric(3, 0.2))
    nobody = Near(beliefs, np.full((50, 3, 3), np.nan), labels, np.full((50, 3), -1), np.full((50, 3), -1))
    assert fit_joint(beliefs, labels, nobody).lean == 0


def test_near_rows_say_how_many_labels_are_wrong() -> None:
    """Anchors whose own labels look right too often: the surest rows are those whose label the belief has seen."""
    beliefs, labels, truth, near = leaning(1.5, 3)
    clean = labels == truth
    errors = [
        expected_calibration_error(fit_joint(beliefs, labels, each).posterior(beliefs, labels).label_score, clean).error
        for each in (near, None)
    ]
    assert errors[0] < 0.6 * errors[1]
    transitions = [np.diag(fit_joint(beliefs, labels, each).transition).mean() for each in (near, None)]
    right = clean.mean()
    assert abs(transitions[0] - right) < 0.5 * abs(transitions[1] - right)


def test_a_matrix_of_memorised_labels_is_that_of_the_rows_beside() -> None:
    """Beliefs that know the class well, and the given label as well; noise goes to the next class."""
    rng = np.random.default_rng(0)
    _, labels, truth = made(8000, next_class(6, 0.3))
    eye = np.eye(6)
    beliefs = 0.01 + eye[truth] * rng.uniform(0.5, 1, (8000, 1)) + eye[labels]
    near = np.stack([rng.choice(np.flatnonzero(truth == k), 3) for k in truth])
    found = fit_joint(beliefs, labels, Near(beliefs, beliefs[near], labels, labels[near], labels[near]))
    np.testing.assert_allclose(found.transition, next_class(6, 0.3), atol=0.06)
    judged = found.posterior(beliefs, labels)
    assert (judged.predicted == truth).mean() > 0.9 > 0.75 > (labels == truth).mean()
    without = fit_joint(beliefs, labels)
    assert np.diag(without.transition).min() > 0.95


def test_the_lean_is_raised_until_the_floor_is_reached() -> None:
    beliefs, labels, truth = made(4000, symmetric(5, 0.4))
    beliefs[np.arange(4000), labels] *= 60  # nearly memorised
    plain, raised = (fit_joint(beliefs, labels, noise_floor=floor) for floor in (0.0, 0.25))
    rates = [1 - model.posterior(beliefs, labels).label_score.mean(dtype=np.float64) for model in (plain, raised)]
    assert rates[0] < 0.2
    assert rates[1] == pytest.approx(0.25, abs=1e-4)
    areas = [roc_auc_score(labels == truth, model.posterior(beliefs, labels).label_score) for model in (plain, raised)]
    assert areas[1] == pytest.approx(areas[0], abs=0.01)
    assert fit_joint(beliefs, labels, noise_floor=rates[0] / 2).lean == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="beliefs"):
        fit_joint(np.ones((3, 2)), np.zeros(2, np.int64))
