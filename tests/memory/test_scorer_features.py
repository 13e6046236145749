"""LabelScorer.fit_features: every row accounted for, people heard, and said where nothing is to be learned."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from rayclean import LabelScorer
from rayclean.errors import ConfigError, InputError
from rayclean.schema import NONE_OF_CLASSES, SCORES, Array
from rayclean.train.heads import HeadSettings
from tests.holders import shuffled

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = HeadSettings(weight_decays=(0.03, 1.0), folds=3, epochs=2)


def made(num_rows: int = 400, num_classes: int = 4, noise: float = 0.15, seed: int = 0) -> tuple[Array, Array, Array]:
    """Features that know the class, given labels, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_rows)
    labels = np.where(rng.random(num_rows) < noise, (truth + 1) % num_classes, truth)
    features = rng.normal(size=(num_rows, 10)).astype(np.float32)
    features[np.arange(num_rows), truth] += 4
    return features, labels, truth


def scorer(**settings: Any) -> LabelScorer:
    return LabelScorer(device="cpu", **settings)


def judged(found: LabelScorer) -> Array:
    return np.asarray(found.labels_["label_score"].to_numpy())


@pytest.mark.filterwarnings("error")
def test_wrong_labels_are_found_and_every_row_is_accounted_for() -> None:
    features, labels, truth = made()
    found = scorer().fit_features(features, labels)
    table, clean = found.labels_, labels == truth
    assert roc_auc_score(clean, judged(found)) > 0.95
    assert table["row"].to_pylist() == list(range(400))
    assert table["key"].to_pylist() == [str(row) for row in range(400)]
    assert table["given_label"].to_pylist() == labels.tolist()
    assert (table["predicted_label"].to_numpy()[~clean] == truth[~clean]).mean() > 0.8
    near = [row for rows in table["neighbor_rows"].to_pylist() for row in rows]
    assert min(near) >= 0
    summary = found.summary_
    assert summary["rows"] == 400
    assert summary["issues"] == sum(table["is_label_issue"].to_pylist())
    assert summary["noise_rate_low"] <= summary["noise_rate"] <= summary["noise_rate_high"]
    assert summary["noise_rate_low"] <= (~clean).mean() <= summary["noise_rate_high"]
    assert (summary["reliable"], summary["reason"], summary["merge_score"]) == (True, "", "joint")


def test_columns_are_those_of_the_scores_with_what_they_mean() -> None:
    features, labels, _ = made(120)
    table = scorer().fit_features(features, labels, heads=QUICK).labels_
    names = [name.removeprefix("score_") for name in table.column_names if name.startswith("score_")]
    usual = {name for name, score in SCORES.items() if score.default and name != "iofm"}
    assert set(names) == {*usual, "loss_oof", "margin_oof"}
    assert all((field.metadata or {}) for field in table.schema)
    given = scorer(scores=["margin", "vote"]).fit_features(features, labels, heads=QUICK)
    assert {n for n in given.labels_.column_names if n.startswith("score_")} == {
        f"score_{name}" for name in ("margin", "vote", "loss_oof", "margin_oof")
    }
    np.testing.assert_allclose(given.score_samples("loss_oof"), given.labels_["score_loss_oof"].to_numpy(), rtol=1e-6)
    with pytest.raises(ConfigError, match="'aum' was not computed"):
        given.score_samples("aum")


def test_every_score_of_features_can_be_asked_for() -> None:
    features, labels, _ = made(120)
    names = [name for name, score in SCORES.items() if name != "osd" and not score.on_features]
    found = scorer(scores=names).fit_features(features, labels, heads=QUICK)
    for name in names:
        assert np.isfinite(found.score_samples(name)).all(), name


def test_the_same_arrays_give_the_same_bytes() -> None:
    features, labels, _ = made(150)
    tables = [scorer(seed=seed).fit_features(features, labels, heads=QUICK).labels_ for seed in (3, 3, 4)]
    assert tables[0].equals(tables[1], check_metadata=True)
    assert not tables[0].equals(tables[2])


def test_whatever_holds_them_they_are_the_same() -> None:
    features, labels, _ = made(150)
    names = np.array(["ant", "bee", "cat", "dog"])
    expected = scorer().fit_features(features, labels, heads=QUICK).labels_
    for values, given in (
        (features.tolist(), labels.tolist()),
        (features.astype(np.float64), pa.array(labels)),
        (shuffled(features), shuffled(labels)),
        (features, shuffled(names[labels]).astype("category")),
    ):
        found = scorer().fit_features(values, given, heads=QUICK).labels_
        assert found["given_label"].to_pylist() == labels.tolist()
        assert found["predicted_label"].to_pylist() == expected["predicted_label"].to_pylist()
        np.testing.assert_allclose(found["label_score"].to_numpy(), expected["label_score"].to_numpy(), atol=1e-3)


@pytest.mark.parametrize("moved", [(8.0, -3.0), (1e-38, 0.0), (1e200, 0.0), (1.0, 1e7)])
def test_units_matter_no_more_than_a_seed(moved: tuple[float, float]) -> None:
    features, labels, truth = made(300)
    factor, offset = moved
    found = scorer().fit_features(features.astype(np.float64) * factor + offset, labels, heads=QUICK)
    usual = scorer(seed=1).fit_features(features, labels, heads=QUICK)
    found_auroc, usual_auroc = (roc_auc_score(labels == truth, judged(each)) for each in (found, usual))
    assert found_auroc == pytest.approx(usual_auroc, abs=0.03)


def test_people_are_heard_by_position_or_by_array() -> None:
    features, labels, truth = made(200)
    names = ["ant", "bee", "cat", "dog"]
    array = np.where(np.arange(200) < 60, truth, -1)
    array[3] = -2
    by_position: dict[int, int | str] = {row: names[truth[row]] for row in range(60)} | {3: "drop"}
    one, other = (
        scorer().fit_features(features, labels, classes=names, verified=each, heads=QUICK)
        for each in (array, by_position)
    )
    assert one.labels_.equals(other.labels_)
    assert (one.summary_["verified"], one.summary_["calibrated"]) == (60, "verified")
    table = one.labels_.to_pylist()
    for row in range(60):
        right = NONE_OF_CLASSES if row == 3 else truth[row]
        assert (table[row]["verified_label"], table[row]["predicted_label"]) == (right, right)
        assert table[row]["label_score"] == float(labels[row] == right)
    assert all(each["verified_label"] is None for each in table[60:])
    everyone = scorer().fit_features(features, labels, verified=truth, heads=QUICK).summary_
    assert everyone["noise_rate"] == pytest.approx((labels != truth).mean())
    dropped = scorer().fit_features(features, labels, verified=np.full(200, -2), heads=QUICK)
    assert (judged(dropped) == 0).all()


@pytest.mark.filterwarnings("error")
def test_people_are_heard_where_there_is_one_class_alone() -> None:
    features, _, _ = made(40)
    found = scorer().fit_features(features, np.zeros(40, int), verified={0: 0, 1: "drop"}, heads=QUICK)
    assert judged(found)[:2].tolist() == [1, 0]
    assert (judged(found)[2:] > 0.99).all()


def test_rows_of_a_group_are_no_evidence_for_each_other() -> None:
    features, labels, _ = made(200)
    features[:20] = features[0] + 1e-4 * np.random.default_rng(0).normal(size=(20, 10))
    labels[:20] = (labels[0] + 2) % 4
    groups = ["clip"] * 20 + [f"{row}" for row in range(180)]
    apart = scorer().fit_features(features, labels, groups=groups, heads=QUICK)
    alone = scorer().fit_features(features, labels, heads=QUICK)
    near = np.array(apart.labels_["neighbor_rows"].to_pylist()[:20])
    assert (near >= 20).all()
    assert judged(apart)[:20].max() < judged(alone)[:20].min()


def test_features_in_another_order_are_not_relied_on() -> None:
    features, labels, _ = made(1000, 10)
    for other in (np.roll(features, 1, axis=0), features[np.random.default_rng(0).permutation(1000)]):
        with pytest.warns(UserWarning, match="by chance") as caught:
            found = scorer().fit_features(other, labels)
        assert not found.summary_["reliable"]
        assert "another order" in found.summary_["reason"]
        assert {warning.filename for warning in caught} == {__file__}, "it points at the call"


@pytest.mark.parametrize("name", ["vote", "loss", "iofm_last", "margin"])
def test_one_score_alone_can_be_merged(name: str) -> None:
    features, labels, truth = made(300)
    found = scorer(merge={"score": name}).fit_features(features, labels, heads=QUICK)
    assert found.summary_["merge_score"] == name
    assert roc_auc_score(labels == truth, judged(found)) == pytest.approx(
        roc_auc_score(labels == truth, found.score_samples(name)), abs=0.02
    )


def test_what_needs_verified_samples_is_refused() -> None:
    features, labels, _ = made(30)
    with pytest.raises(ConfigError, match="score osd needs verified samples"):
        scorer(scores=["loss", "osd"]).fit_features(features, labels)


def test_heads_learn_as_the_section_says() -> None:
    features, labels, _ = made(150)
    fields = {"weight_decays": [0.03, 1.0], "folds": 3, "epochs": 2}
    one = scorer(train=fields).fit_features(features, labels)
    assert one.labels_.equals(scorer().fit_features(features, labels, heads=QUICK).labels_)
    assert not one.labels_.equals(scorer().fit_features(features, labels).labels_)


def test_scores_have_their_epochs() -> None:
    features, labels, _ = made(150)
    found = scorer().fit_features(features, labels, heads=QUICK)
    epochs = dict(found.score_epochs("aum"))
    assert list(epochs) == list(range(1, QUICK.epochs + 1)), "of few rows an epoch has several passes"
    np.testing.assert_array_equal(epochs[max(epochs)], found.score_samples("aum"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": np.zeros((30, 0))}, r"features: \(N, d\)"),
        ({"features": np.zeros((29, 3))}, "features: .*30"),
        ({"features": np.full((30, 3), np.nan)}, "features"),
        ({"labels": np.full(30, -1)}, "found -1 at position 0"),
        ({"groups": ["a"]}, "groups: .*30"),
        ({"keys": ["a"]}, "keys: .*30"),
        ({"verified": {30: 0}}, "positions 0 .. 29 expected"),
        ({"verified": {0: "dragon"}}, "found 'dragon'"),
        ({"verified": np.zeros(29)}, "verified: .*30"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], said: str) -> None:
    features, labels, _ = made(30)
    with pytest.raises(InputError, match=said):
        scorer().fit_features(**{"features": features, "labels": labels % 4, **changes})


@pytest.mark.parametrize(("num_rows", "num_classes"), [(1, 1), (1, 2), (2, 1), (2, 2), (6, 2), (6, 6)])
def test_sets_that_are_hardly_there(num_rows: int, num_classes: int) -> None:
    labels = np.arange(num_rows) % num_classes
    features = np.random.default_rng(0).normal(size=(num_rows, 4)) + 5 * np.eye(6)[labels, :4]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = scorer().fit_features(features, labels, num_classes=num_classes, heads=QUICK)
    scores = judged(found)
    assert scores.shape == (num_rows,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert found.summary_["rows"] == num_rows


def test_odd_is_judged_at_the_last_epoch_where_heads_have_fewer_than_it_names() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = np.eye(3)[labels] + rng.normal(scale=0.3, size=(60, 3))
    steps, last = {"epochs": 100, "batch_size": 1}, HeadSettings(epochs=100, batch_size=1).epochs_of(60)
    assert last < 100
    late, whole = (
        LabelScorer(scores=["odd"], train=steps, simulated_loss={"epoch": epoch}).fit_features(features, labels)
        for epoch in (last + 7, last)
    )
    assert np.isfinite(late.score_samples("odd")).all()
    np.testing.assert_array_equal(late.labels_["odd_quantile"].to_numpy(), whole.labels_["odd_quantile"].to_numpy())
