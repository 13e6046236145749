"""Scores by features: which rows say nothing of each other, and that every row is judged by others alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config, parse_config
from rayclean.memory.features import FeatureScoring, find_groups
from rayclean.memory.rows import Samples
from rayclean.schema import Array
from rayclean.storage.draws import pixel_digest
from rayclean.train.heads import HeadSettings

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS = HeadSettings(weight_decays=(0.03, 1.0), folds=3, epochs=2)
NAMES = ("loss", "ens_loss", "margin", "aum", "wrong_events", "iofm_last", "vote", "odd", "inn", "osm")


def config_of(num_classes: int) -> Config:
    tree: dict[str, Any] = {
        "run": {"dir": "memory", "seed": 0},
        "data": {"shards": "memory", "classes": num_classes},
        "model": {"name": "small_resnet"},
        "scores": list(NAMES),
        "influence": {"validation": "memory"},
    }
    return parse_config(tree, "test")


def made(num_rows: int = 90, groups: list[str] | None = None) -> FeatureScoring:
    """Three classes, a tenth of whose labels are the next one's."""
    rng = np.random.default_rng(0)
    truth = np.arange(num_rows) % 3
    labels = np.where(rng.random(num_rows) < 0.1, (truth + 1) % 3, truth)
    features = (rng.normal(size=(num_rows, 6)) + 4 * np.eye(6)[truth]).astype(np.float32)
    features[5] = features[2]
    digests = [pixel_digest(row) for row in features]
    samples = Samples.make(labels, digests, [str(row) for row in range(num_rows)])
    related = find_groups(samples.digests, groups)
    return FeatureScoring(config_of(3), samples, features, related, 3, "cpu", HEADS)


def plain_groups(digests: Array, groups: list[str] | None) -> list[set[int]]:
    """Sets of rows that equal digests or names join, by any number of steps."""
    sets = [{row} for row in range(len(digests))]
    for a in range(len(digests)):
        for b in range(a):
            if tuple(digests[a]) == tuple(digests[b]) or (groups is not None and groups[a] == groups[b]):
                one, other = (next(each for each in sets if row in each) for row in (a, b))
                sets = [each for each in sets if each is not one and each is not other] + [one | other]
    return sets


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcdefg")), min_size=1, max_size=12), st.booleans())
def test_groups_join_equal_features_and_equal_names(rows: list[tuple[int, str]], named: bool) -> None:
    digests = np.array([[0, digest] for digest, _ in rows], np.uint64)
    names = [name for _, name in rows] if named else None
    found = find_groups(digests, names)
    by_id = {tuple(np.flatnonzero(found == each).tolist()) for each in found}
    assert by_id == {tuple(sorted(each)) for each in plain_groups(digests, names)}


def test_rows_of_a_group_share_a_fold_and_are_no_neighbours() -> None:
    scoring = made(groups=[f"clip {row // 6}" for row in range(90)])
    groups, folds = scoring.groups, scoring.folds
    assert ((folds >= 0) & (folds < HEADS.folds)).all()
    for each in np.unique(groups):
        assert len(np.unique(folds[groups == each])) == 1
    for lists in (scoring.neighbors, scoring._nearest(40, any_label=False)):
        there = lists >= 0
        assert (groups[lists] != groups[:, None])[there].all()
        assert (there[:, :-1] >= there[:, 1:]).all(), "what is missing stands at the end"


def test_rows_of_a_group_take_no_neighbours_place() -> None:
    """Frames of a clip under many labels, nearer to each other than to anything else."""
    scoring = made(groups=["clip"] * 60 + [str(row) for row in range(30)])
    scoring.features[:60] = 0.01 * scoring.features[:60] + 9
    lists = scoring.neighbors[:60]
    assert ((lists >= 60).sum(axis=1) == 30).all()


def test_neighbours_are_the_nearest_by_angle() -> None:
    scoring = made()
    values = scoring.inputs.numpy().astype(np.float64)
    angles = values @ values.T / np.outer(*[np.linalg.norm(values, axis=1)] * 2)
    labels = scoring.samples.labels
    same = scoring._nearest(5, any_label=False)
    for row in range(90):
        others = np.flatnonzero(scoring.groups != scoring.groups[row])
        found = scoring.neighbors[row, :5]
        np.testing.assert_allclose(angles[row, found], np.sort(angles[row, others])[::-1][:5], atol=1e-6)
        of_label = others[labels[others] == labels[row]]
        assert (labels[same[row]] == labels[row]).all()
        np.testing.assert_allclose(angles[row, same[row]], np.sort(angles[row, of_label])[::-1][:5], atol=1e-6)


def test_what_is_said_of_a_label_has_not_seen_it() -> None:
    """One label changed: the beliefs that the row is judged by keep their bytes."""
    scoring = made()
    labels = scoring.samples.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    other = FeatureScoring(
        scoring.config, replace(scoring.samples, labels=labels), scoring.features, scoring.groups, 3, "cpu", HEADS
    )
    for name, belief in scoring.beliefs().items():
        assert belief[7].tobytes() == other.beliefs()[name][7].tobytes(), name
        assert belief.tobytes() != other.beliefs()[name].tobytes(), name
    names = ("inn",)
    blocks = [each.block(names) for each in (scoring, other)]
    assert blocks[0].belief[7].tobytes() == blocks[1].belief[7].tobytes()


def test_every_row_has_every_score() -> None:
    scoring = made()
    block = scoring.block(NAMES)
    assert list(block.scores) == [*NAMES, "loss_oof", "margin_oof"]
    for name, values in block.scores.items():
        assert values.shape == (90,), name
        assert values.dtype == np.float64, name
        assert np.isfinite(values).all(), name
    for name, rest in block.one_minus.items():
        np.testing.assert_allclose(block.scores[name] + rest, 1, rtol=1e-9)
    np.testing.assert_allclose(block.belief.sum(axis=1), 1, rtol=1e-6)
    for name, belief in scoring.beliefs().items():
        np.testing.assert_allclose(belief.sum(axis=1), 1, rtol=1e-9, err_msg=name)
    assert set(scoring.reference) <= set(scoring.beliefs())
    wanted = scoring.block(("vote", "loss"))
    for name in ("vote", "loss", "loss_oof"):
        np.testing.assert_array_equal(wanted.scores[name], block.scores[name])
    assert list(wanted.scores) == ["vote", "loss", "loss_oof", "margin_oof"]


def test_wrong_labels_have_lower_scores() -> None:
    block = made(300).block(NAMES)
    wrong = made(300).samples.labels != np.arange(300) % 3
    for name in ("loss_oof", "margin_oof", "vote", "iofm_last", "inn"):
        assert block.scores[name][wrong].mean() < np.median(block.scores[name][~wrong]), name
