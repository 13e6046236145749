"""The joint model: the plain formula, what is tempered, none of the classes, and the merge of a run by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from rayclean import LabelScorer
from rayclean.config import Config
from rayclean.merge.anchors import fit_joint
from rayclean.merge.joint import JointModel
from rayclean.merge.models import MAX_NUMBERS, fit_rows
from rayclean.merge.near import Near
from rayclean.run.run import Run
from rayclean.schema import DROPPED, NONE_OF_CLASSES, Array
from rayclean.scores.sources import Sources
from rayclean.storage.contents import read_json, read_table
from rayclean.storage.published import Published
from rayclean.storage.units import num_blocks
from tests.merge.beliefs import made, next_class, symmetric


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
        np.testing.assert_allclose(np.exp(model.log_posterior(beliefs, labels)[row]), [*q, 0], rtol=1e-9)
        assert found.predicted[row] == q.argmax()
        assert found.predicted_score[row] == pytest.approx(q.max(), rel=1e-6)
        if 0.02 < q[labels[row]] < 0.98:  # past that it is bounded
            assert found.label_score[row] == pytest.approx(q[labels[row]], rel=1e-5)


def test_order_and_rank_survive_certainty() -> None:
    beliefs, labels, truth = made(2000, symmetric(10, 0.3), sure=5)
    found = fit_joint(beliefs, labels).posterior(beliefs, labels).label_score
    assert np.isfinite(found).all()
    assert ((found > 0) & (found < 1)).all()
    assert len(np.unique(found)) > 1800
    assert roc_auc_score(labels == truth, found) > 0.999


def test_memorised_labels_are_said_to_be_so() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    beliefs = 0.9 * np.eye(10)[labels] + 0.01
    model = fit_joint(beliefs, labels)
    assert not model.reliable
    assert "memorised" in model.reason
    assert fit_joint(*made(1000, symmetric(10, 0.3))[:2]).reliable


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


def test_many_classes_are_fitted_on_fewer_rows() -> None:
    assert fit_rows("joint", 100_000, 10) == fit_rows("iofm", 100_000, 1000) == 100_000
    assert fit_rows("joint", 100_000, 1000) == MAX_NUMBERS // 1000


def test_what_is_tempered_equals_the_formula_and_sums_to_one() -> None:
    beliefs, labels, _ = made(300, next_class(5, 0.3), sure=0.6)
    shares = np.random.default_rng(0).dirichlet(np.ones(5))
    model = replace(fit_joint(beliefs, labels), lean=0.3, temper=0.6, center=-0.4)
    model = replace(model, none=0.15, unclaimed=-1.0, shares=shares)
    found = model.posterior(beliefs, labels)
    log_q = model.log_posterior(beliefs, labels)
    np.testing.assert_allclose(np.exp(log_q).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(found.seen.sum(axis=1) + seen_none(model, beliefs, labels), 1, rtol=1e-12)
    for row, label in enumerate(labels):
        own = np.log(beliefs[row] + 1e-9) - model.log_mean - 0.3 * np.eye(5)[label]
        rest = np.log(1 - max(np.exp(own) / np.exp(own).sum())) + 1.0
        q = np.append(0.85 * model.prior * np.exp(model.sharpness * own) * model.transition[:, label], 0)
        q[-1] = 0.15 * np.exp(model.sharpness * rest) * shares[label]
        q /= q.sum()
        np.testing.assert_allclose(np.exp(log_q[row]), q, rtol=1e-9)
        log_odds = -0.4 + 0.6 * (np.log(q[label] / (1 - q[label])) + 0.4)
        right = 1 / (1 + np.exp(-log_odds))
        others = np.where(np.arange(6) == label, 0, q**0.6)
        q = others * (1 - right) / others.sum()
        q[label] = right
        assert model.log_odds(beliefs[[row]], labels[[row]])[0] == pytest.approx(log_odds, rel=1e-9)
        assert found.whole is not None
        np.testing.assert_allclose(found.whole[row], q, rtol=1e-9)
        assert found.predicted[row] == (q.argmax() if q.argmax() < 5 else NONE_OF_CLASSES)
        assert found.predicted_score[row] == pytest.approx(q.max(), rel=1e-5)
        if 0.02 < right < 0.98:  # past that it is bounded
            assert found.label_score[row] == pytest.approx(right, rel=1e-5)


def seen_none(model: JointModel, beliefs: Array, labels: Array) -> Array:
    """(N,) what is believed of none of the classes without the row's label."""
    same = replace(model, transition=np.full((5, 5), 0.2), shares=np.full(5, 0.2))
    return np.asarray(np.exp(same.log_posterior(beliefs, labels))[:, -1])


@pytest.mark.parametrize("temper", [0.05, 0.5, 1.0])
def test_no_temper_changes_the_order_of_labels(temper: float) -> None:
    beliefs, labels, _ = made(500, symmetric(6, 0.3))
    plain = fit_joint(beliefs, labels)
    model = replace(plain, temper=temper, center=-1.0)
    before, after = (each.log_odds(beliefs, labels) for each in (plain, model))
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
    scores = model.posterior(beliefs, labels).label_score
    assert (np.diff(scores[np.argsort(before, kind="stable")]) >= 0).all()
    assert np.abs(after + 1).max() <= np.abs(before + 1).max() * temper + 1e-9


def test_what_is_believed_in_of_none_is_predicted_so() -> None:
    beliefs, labels, _ = made(400, symmetric(4, 0.1), sure=3)
    beliefs[:50] = 0.25
    model = replace(fit_joint(beliefs, labels), none=0.3, unclaimed=-2.0, shares=np.full(4, 0.25))
    found = model.posterior(beliefs, labels)
    assert (found.predicted[:50] == NONE_OF_CLASSES).all()
    assert (found.predicted[50:] != NONE_OF_CLASSES).mean() > 0.9
    assert (model.posterior(beliefs, labels).predicted_score > 0).all()
    assert (replace(model, none=0.0).posterior(beliefs, labels).predicted != NONE_OF_CLASSES).all()


def test_what_is_believed_is_counted_by_label_with_what_people_say() -> None:
    beliefs, labels, truth = made(200, symmetric(4, 0.2))
    model = replace(fit_joint(beliefs, labels), none=0.1, unclaimed=-2.0, shares=np.full(4, 0.25), temper=0.7)
    people = np.where(np.arange(200) < 40, truth, -1)
    people[:10] = DROPPED
    found = model.posterior(beliefs, labels).confirmed(labels, people)
    assert found.whole is not None
    expected = np.zeros((5, 4))
    for row, label in enumerate(labels):
        said = people[row] if people[row] != DROPPED else 4
        whole = found.whole[row] if row >= 40 else np.eye(5)[said]
        np.testing.assert_array_equal(found.whole[row], whole)
        expected[:, label] += whole
    counts = found.counts(labels)
    assert counts is not None
    np.testing.assert_allclose(counts, expected)
    np.testing.assert_allclose(counts.sum(axis=0), np.bincount(labels, minlength=4))
