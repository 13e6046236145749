"""The joint model: the plain formula, what it finds in made labels, and what it must survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import dirichlet_multinomial
from sklearn.metrics import roc_auc_score

from rayclean import LabelScorer
from rayclean.arrays import Array
from rayclean.config import Config
from rayclean.merge.anchors import fit_joint
from rayclean.merge.joint import JointModel
from rayclean.merge.models import MAX_NUMBERS, Fitted, fit_rows
from rayclean.merge.near import Near
from rayclean.merge.published import Published
from rayclean.merge.transition import _evidence, find_anchors, noisier, pooled_transition, surest
from rayclean.report.metrics import expected_calibration_error
from rayclean.run import Run
from rayclean.scores.sources import Sources
from rayclean.storage.contents import read_json, read_table
from rayclean.storage.units import num_blocks


def made(
    num_rows: int, transition: Array, seed: int = 0, sure: float = 1.2, prior: Array | None = None
) -> tuple[Array, Array, Array]:
    """Beliefs that know the true class roughly, given labels by a transition matrix, and the truth."""
    rng, num_classes = np.random.default_rng(seed), len(transition)
    truth = rng.choice(num_classes, num_rows, p=prior)
    logits = rng.normal(size=(num_rows, num_classes)) + sure * 2 * np.eye(num_classes)[truth]
    beliefs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(num_classes, p=transition[k]) for k in truth])
    return beliefs, labels, truth


def symmetric(num_classes: int, rate: float) -> Array:
    return (1 - rate) * np.eye(num_classes) + rate / num_classes


def next_class(num_classes: int, rate: float) -> Array:
    return (1 - rate) * np.eye(num_classes) + rate * np.roll(np.eye(num_classes), 1, axis=1)


def plain_posterior(model: JointModel, belief: Array, label: int) -> Array:
    own = np.log(belief + 1e-9) - model.log_mean - model.lean * np.eye(len(belief))[label]
    q = model.prior * np.exp(model.sharpness * own) * model.transition[:, label]
    return np.asarray(q / q.sum())


def test_it_equals_the_formula() -> None:
    beliefs, labels, _ = made(300, next_class(5, 0.3))
    model = replace(fit_joint(beliefs, labels), lean=0.3)
    found = model.posterior(beliefs, labels)
    for row in range(300):
        q = plain_posterior(model, beliefs[row], labels[row])
        np.testing.assert_allclose(np.exp(model.log_posterior(beliefs, labels)[row]), q, rtol=1e-9)
        assert found.predicted[row] == q.argmax()
        assert found.predicted_score[row] == pytest.approx(q.max(), rel=1e-6)
        if 0.02 < q[labels[row]] < 0.98:  # past that it is bounded
            assert found.label_score[row] == pytest.approx(q[labels[row]], rel=1e-5)


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


def test_chance_structure_fades() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(40, row) for row in symmetric(10, 0.4)]).astype(float)
    beside = ~np.eye(10, dtype=bool)
    spread = (counts / 40)[beside].std()
    assert pooled_transition(counts)[beside].std() < spread / 5
    structured = np.array([rng.multinomial(40, row) for row in next_class(10, 0.4)]).astype(float)
    assert np.diag(pooled_transition(structured), 1).mean() > 0.25


def test_the_evidence_is_that_of_dirichlet_rows() -> None:
    counts, mean = np.array([[3.0, 1, 0], [0, 2, 2]]), np.array([[0.6, 0.2, 0.2], [0.1, 0.5, 0.4]])
    expected = 0.0
    for row, share in zip(counts, mean, strict=True):
        expected += float(dirichlet_multinomial.logpmf(row.astype(int), 7 * share, np.array(int(row.sum()))))
        expected -= float(gammaln(row.sum() + 1) - gammaln(row + 1).sum())  # the order of the draws
    assert _evidence(counts, mean, 7) == pytest.approx(expected, rel=1e-12)


def test_anchors_are_the_surest_rows_of_each_class() -> None:
    rng = np.random.default_rng(0)
    belief = rng.normal(size=(500, 4)) * [1, 1, 1, 0.1]
    rows, classes = find_anchors(*surest(belief), share=0.2, least=20)
    ordered = np.sort(belief, axis=1)
    gap = ordered[:, -1] - ordered[:, -2]
    assert (belief.argmax(axis=1)[rows] == classes).all()
    assert (np.diff(rows) > 0).all()
    for k in range(4):
        here, chosen = np.flatnonzero(belief.argmax(axis=1) == k), rows[classes == k]
        assert len(chosen) == max(min(20, len(here)), int(np.ceil(0.2 * len(here))))
        assert gap[chosen].min() >= gap[np.setdiff1d(here, chosen)].max(initial=-1)


def test_a_class_without_anchors_borrows() -> None:
    counts = np.array([[90.0, 10, 0], [5, 95, 0], [0, 0, 0]])
    found = pooled_transition(counts)
    assert found[2, 2] == pytest.approx((90 + 95 + 1) / 202)
    assert found[2, 0] == found[2, 1]
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_order_and_rank_survive_certainty() -> None:
    beliefs, labels, truth = made(2000, symmetric(10, 0.3), sure=5)
    found = fit_joint(beliefs, labels).posterior(beliefs, labels).label_score
    assert np.isfinite(found).all()
    assert ((found > 0) & (found < 1)).all()
    assert len(np.unique(found)) > 1800
    assert roc_auc_score(labels == truth, found) > 0.999


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


@given(st.integers(2, 6), st.floats(1, 50), st.integers(0, 99))
def test_a_noisier_matrix_has_larger_odds_and_the_same_shape(num_classes: int, ratio: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(num_classes), num_classes)
    found = noisier(matrix, ratio)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    right, before = np.diag(found), np.diag(matrix)
    np.testing.assert_allclose((1 - right) / right, ratio * (1 - before) / before, rtol=1e-6)
    off = ~np.eye(num_classes, dtype=bool)
    share = found / (1 - right)[:, None]
    np.testing.assert_allclose(share[off], (matrix / (1 - before)[:, None])[off], rtol=1e-6)


def test_a_matrix_without_noise_stays() -> None:
    np.testing.assert_array_equal(noisier(np.eye(3), 5.0), np.eye(3))


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


def test_memorised_labels_are_said_to_be_so() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    beliefs = 0.9 * np.eye(10)[labels] + 0.01
    model = fit_joint(beliefs, labels)
    assert not model.reliable
    assert "memorised" in model.reason
    assert fit_joint(*made(1000, symmetric(10, 0.3))[:2]).reliable


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="beliefs"):
        fit_joint(np.ones((3, 2)), np.zeros(2, np.int64))


def test_many_classes_are_fitted_on_fewer_rows() -> None:
    assert fit_rows("joint", 100_000, 10) == fit_rows("iofm", 100_000, 1000) == 100_000
    assert fit_rows("joint", 100_000, 1000) == MAX_NUMBERS // 1000


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


@pytest.mark.parametrize("scores", ["[loss, iofm]", "[loss]"])
def test_a_run_merges_by_it(
    scores: str, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run", "merge.score=joint", f"scores={scores}"))
    files = run.score_files()
    sources = Sources(Published.open(run.store).summary()["belief_epoch"])
    beliefs = np.concatenate(
        [files.read(block, sources).belief for block in range(num_blocks(files.num_rows, files.block_rows))]
    )
    rows = np.concatenate([files.neighbors(block) for block in range(num_blocks(files.num_rows, files.block_rows))])
    around = np.where((rows >= 0)[:, :, None], beliefs[rows], np.nan)
    first = np.concatenate([files.neighbors(b, 0) for b in range(num_blocks(files.num_rows, files.block_rows))])
    labels = [np.where(each >= 0, run.catalog.label[each], -1) for each in (rows, first)]
    near = Near(beliefs, around, run.catalog.label, *labels)
    floor = read_json(run.store, run.merge()[0].file("model"))["trust"]["noise_floor"]
    expected = fit_joint(beliefs, run.catalog.label, near, floor).posterior(beliefs, run.catalog.label)
    found = table_of(run)
    np.testing.assert_allclose(found["label_score"].to_numpy(), expected.label_score, rtol=0, atol=1e-6)
    assert found["predicted_label"].to_pylist() == expected.predicted.tolist()
    assert Published.open(run.store).summary()["merge_score"] == "joint"


def test_another_models_predictions_are_merged_by_it() -> None:
    beliefs, labels, truth = made(3000, next_class(6, 0.3), sure=0.8)
    scorer = LabelScorer(merge={"score": "joint"}).fit_predictions(labels, beliefs)
    found = scorer.labels_["label_score"].to_numpy()
    assert roc_auc_score(labels == truth, found) > roc_auc_score(labels == truth, scorer.score_samples("loss")) + 0.01
    assert scorer.summary_["merge_score"] == "joint"
