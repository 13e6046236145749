"""Runs on features in memory: which rows say nothing of each other, and that every row is judged by others alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.groups import find_groups
from rayclean.config import parse_config
from rayclean.memory.run import begin_features, compute
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.block import BlockScores
from rayclean.storage.contents import map_arrays

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("loss", "ens_loss", "margin", "aum", "wrong_events", "iofm_last", "inn", "vote", "osm")
BLIND = ("loss_oof", "margin_oof")


def labels_of(num_rows: int) -> Array:
    """Three classes, a tenth of whose labels are the next one's."""
    truth = np.arange(num_rows) % 3
    return np.where(np.random.default_rng(0).random(num_rows) < 0.1, (truth + 1) % 3, truth)


def features_of(num_rows: int) -> Array:
    """Clouds around the corners of three classes, two of which are one point."""
    rng = np.random.default_rng(1)
    features = (rng.normal(size=(num_rows, 6)) + 4 * np.eye(6)[np.arange(num_rows) % 3]).astype(np.float32)
    features[5] = features[2]
    return features


def done(
    num_rows: int = 90,
    groups: Sequence[str] | None = None,
    labels: Array | None = None,
    features: Array | None = None,
    names: Sequence[str] = NAMES,
) -> Run:
    """A run that is computed."""
    tree: dict[str, Any] = {
        "run": {"dir": "memory"},
        "data": {"shards": "memory", "classes": 3, "features": "npy", "image": "none"},
        "train": {"weight_decays": [0.03, 1.0], "folds": 3, "epochs": 2},
        "scores": [*names, "odd"],
    }
    values = features_of(num_rows) if features is None else features
    given_labels = labels_of(num_rows) if labels is None else labels
    keys, nobody = [str(row) for row in range(num_rows)], np.full(num_rows, NO_LABEL)
    run = begin_features(parse_config(tree, "test"), values, given_labels, keys, groups, "cpu", nobody)
    compute(lambda: grow(run))
    return run


def block_of(run: Run) -> BlockScores:
    return run.score_files().read(0)


def lists_of(run: Run, any_label: bool) -> Array:
    """(N, L) in the order of the rows."""
    space, num = run.space, run.config.iofm.num
    if any_label:
        folder = run.any_label(space, num).folder
        return np.array(map_arrays(run.store, f"{folder}/any/000000.safetensors")["rows"])
    folder = run.same_label(space, num).folder
    lists = map_arrays(run.store, f"{folder}/same/000000.safetensors")["rows"]
    result = np.empty_like(lists)
    result[run.catalog.by_label] = lists
    return result


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
    found = find_groups(digests, None if names is None else np.array(names))
    by_id = {tuple(np.flatnonzero(found == each).tolist()) for each in found}
    assert by_id == {tuple(sorted(each)) for each in plain_groups(digests, names)}


def test_rows_of_a_group_share_a_fold_and_are_no_neighbours() -> None:
    run = done(groups=[f"clip {row // 6}" for row in range(90)])
    groups, folds = run.catalog.group, run.heads.task.folds()
    assert ((folds >= 0) & (folds < 3)).all()
    assert len(np.unique(folds)) == 3
    for each in np.unique(groups):
        assert len(np.unique(folds[groups == each])) == 1
    for any_label in (True, False):
        lists = lists_of(run, any_label)
        there = lists >= 0
        assert (groups[lists] != groups[:, None])[there].all()
        assert (there[:, :-1] >= there[:, 1:]).all(), "what is missing stands at the end"


def test_rows_of_a_group_take_no_neighbours_place() -> None:
    """Frames of a clip under many labels, nearer to each other than to anything else."""
    features = features_of(90)
    features[:60] = 0.01 * features[:60] + 9
    lists = lists_of(done(groups=["clip"] * 60 + [str(row) for row in range(30)], features=features), True)[:60]
    assert ((lists >= 60).sum(axis=1) == 30).all()


def test_neighbours_are_the_nearest_by_angle() -> None:
    run = done()
    rows, labels, groups = np.arange(90), run.catalog.label, run.catalog.group
    values = run.heads.task.features.read(rows).astype(np.float64)
    angles = values @ values.T / np.outer(*[np.linalg.norm(values, axis=1)] * 2)
    near, same = lists_of(run, True)[:, :5], lists_of(run, False)[:, :5]
    for row in rows:
        others = np.flatnonzero(groups != groups[row])
        np.testing.assert_allclose(angles[row, near[row]], np.sort(angles[row, others])[::-1][:5], atol=1e-3)
        of_label = others[labels[others] == labels[row]]
        assert (labels[same[row]] == labels[row]).all()
        np.testing.assert_allclose(angles[row, same[row]], np.sort(angles[row, of_label])[::-1][:5], atol=1e-3)


def test_what_is_said_of_a_label_has_not_seen_it() -> None:
    """One label changed: the beliefs that the row is judged by keep their bytes."""
    changed = labels_of(90)
    changed[7] = (changed[7] + 1) % 3
    one, other = done(), done(labels=changed)
    said = [run.score_files().blind_beliefs(0) for run in (one, other)]
    for name, belief in said[0].items():
        assert belief[7].tobytes() == said[1][name][7].tobytes(), name
        assert belief.tobytes() != said[1][name].tobytes(), name
    assert block_of(one).belief[7].tobytes() == block_of(other).belief[7].tobytes()
    walks = [run.interpolate(run.walks_of("inn")[0]) for run in (one, other)]
    paths = [
        map_arrays(run.store, walk.file("000000"))["values"] for run, walk in zip((one, other), walks, strict=True)
    ]
    assert paths[0][7].tobytes() == paths[1][7].tobytes()


def test_every_row_has_every_score() -> None:
    run = done()
    block = block_of(run)
    assert set(block.scores) == {*NAMES, "odd", *BLIND}
    for name, values in block.scores.items():
        assert values.shape == (90,), name
        assert values.dtype == np.float64, name
        assert np.isfinite(values).all(), name
    for name in ("iofm_last", "inn"):
        rest = block.one_minus[name]
        np.testing.assert_allclose(block.scores[name] + rest, 1, rtol=1e-6)
    np.testing.assert_allclose(block.belief.sum(axis=1), 1, rtol=1e-6)
    for name, belief in run.score_files().blind_beliefs(0).items():
        np.testing.assert_allclose(belief.sum(axis=1), 1, rtol=1e-6, err_msg=name)
    few = block_of(done(names=("vote", "loss")))
    for name in ("vote", "loss", *BLIND):
        np.testing.assert_array_equal(few.scores[name], block.scores[name])
    assert set(few.scores) == {"vote", "loss", "odd", *BLIND}


def test_wrong_labels_have_lower_scores() -> None:
    block, wrong = block_of(done(300)), labels_of(300) != np.arange(300) % 3
    for name in (*BLIND, "vote", "iofm_last", "inn"):
        assert block.scores[name][wrong].mean() < np.median(block.scores[name][~wrong]), name
