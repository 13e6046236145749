"""Which beliefs are trusted: the rule by a plain loop, and what it does where labels are memorised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config
from rayclean.merge.trust import Agreement, agreement, trusted
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores.sources import LAST, Sources, combined
from rayclean.storage.contents import read_json
from rayclean.storage.published import Published

shares = st.floats(0, 1)


def test_agreement_is_counted_as_it_says() -> None:
    rng = np.random.default_rng(0)
    beliefs, labels, near = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50), rng.integers(-1, 4, (50, 3))
    surest = (beliefs / beliefs.mean(axis=0)).argmax(axis=1)
    own = np.mean([top == label for top, label in zip(surest, labels, strict=True)])
    pairs = [(i, label) for i, row in enumerate(near) for label in row if label >= 0]
    found = agreement(beliefs, labels, near)
    assert found.own == pytest.approx(own)
    by_belief, by_label = (np.mean([of[i] == label for i, label in pairs]) for of in (surest, labels))
    assert found.near == pytest.approx(by_belief)
    gains = np.array([int(surest[i] == label) - int(labels[i] == label) for i, label in pairs])
    rows = (near >= 0).any(axis=1).sum()
    assert gains.mean() == pytest.approx(by_belief - by_label)
    assert found.floor == pytest.approx(max(gains.mean() - gains.std() / np.sqrt(rows), 0) / by_belief)


def test_without_neighbours_the_last_snapshot_is_trusted() -> None:
    alone = agreement(np.full((3, 2), 0.5), np.array([0, 1, 0]), np.full((3, 3), -1))
    assert np.isnan(alone.near)
    assert alone.floor == 0
    assert trusted({1: alone, 2: alone}, {"ce": alone}).sources == Sources(2, ("ce",))


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6), st.lists(st.tuples(shares, shares), max_size=3))
def test_the_last_that_disagrees_enough_is_trusted(
    epochs: list[tuple[float, float]], roles: list[tuple[float, float]]
) -> None:
    """Of made shares, also such as no run would give."""
    found = {e: Agreement(own, 0.5, floor) for e, (own, floor) in enumerate(epochs)}
    others = {f"r{i}": Agreement(own, 0.5, floor) for i, (own, floor) in enumerate(roles)}
    sources = trusted(found, others).sources
    at_least = max(each.floor for each in found.values())
    allowed = [e for e, each in found.items() if 1 - each.own >= at_least]
    if allowed:
        assert sources.epoch is not None
        assert sources.epoch >= allowed[-1]
        assert sources.epoch == allowed[-1] or found[sources.epoch].own == min(each.own for each in found.values())
    assert sources.roles == tuple(name for name, each in others.items() if 1 - each.own >= at_least)


def memorising(rows: int = 4000, wrong: float = 0.3) -> tuple[Array, Array, Array, dict[int, Array]]:
    """Labels, labels of near rows, and beliefs that follow the truth at epoch 1 and their own label at epoch 3."""
    rng, num_classes = np.random.default_rng(1), 5
    truth = rng.integers(0, num_classes, rows)
    drawn = [np.where(rng.random(rows) < wrong, rng.integers(0, num_classes, rows), truth) for _ in range(4)]
    eye = np.eye(num_classes)
    known = np.where(rng.random(rows) < 0.9, truth, rng.integers(0, num_classes, rows))
    beliefs = {1: 0.1 + eye[known], 2: 0.1 + eye[known] + 0.9 * eye[drawn[0]], 3: 0.1 + eye[drawn[0]]}
    return drawn[0], np.stack(drawn[1:], axis=1), truth, beliefs


def test_memorised_labels_are_noticed() -> None:
    labels, near, truth, beliefs = memorising()
    found = {epoch: agreement(belief, labels, near) for epoch, belief in beliefs.items()}
    chosen = trusted(found, {"overfitted": found[3], "good": found[1]})
    assert chosen.sources == Sources(2, ("good",))
    assert (beliefs[2].argmax(axis=1) == truth).mean() > (beliefs[3].argmax(axis=1) == truth).mean() + 0.1


def test_what_near_rows_show_is_a_floor_of_the_noise() -> None:
    for wrong in (0.3, 0.5):
        labels, near, truth, beliefs = memorising(wrong=wrong)
        found = trusted({epoch: agreement(belief, labels, near) for epoch, belief in beliefs.items()}, {})
        noise = (labels != truth).mean()
        assert 0.4 * noise < found.noise_floor < noise


def test_labels_without_noise_are_not_mistaken_for_memorised_ones() -> None:
    labels, near, _, beliefs = memorising(wrong=0.0)
    found = {epoch: agreement(belief, labels, near) for epoch, belief in beliefs.items()}
    assert trusted(found, {}).sources.epoch == 3


def test_beliefs_are_combined_by_the_geometric_mean() -> None:
    a, b = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.8, 0.2], [0.1, 0.9]])
    expected = np.sqrt((a + 1e-9) * (b + 1e-9))
    np.testing.assert_allclose(combined([a, b]), expected / expected.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(combined([a]), a)


def test_a_run_says_whose_beliefs_it_took(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    more = ("train.epochs=2", "train.from=", "train.snapshot_every=1", "train.roles.ce.epochs=1")
    run = finish(tiny_config(tmp_path / "run", *more, "scores=[loss, iofm]"))
    fitted = read_json(run.store, run.merge()[0].file("model"))
    assert [each["source"] for each in fitted["trust"]["epochs"]] == [1, 2]
    assert [each["source"] for each in fitted["trust"]["roles"]] == ["ce"]
    summary = Published.open(run.store).summary()
    sources = Sources(summary["belief_epoch"], tuple(summary["belief_roles"]))
    expected = {"epoch": sources.epoch, "roles": list(sources.roles), "near": "without"}
    assert fitted["model"]["sources"] == expected
    files, rows = run.score_files(), np.arange(run.score_files().block_rows)
    ce = files.belief_of_role("ce", rows)
    both = combined([files.belief(0, Sources(1)), ce])
    np.testing.assert_allclose(files.belief(0, Sources(1, ("ce",))), both, rtol=1e-12)
    np.testing.assert_array_equal(files.belief(0, LAST), files.belief(0, Sources(2)))


def test_planted_labels_are_not_believed(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    more = ("train.epochs=1", "train.from=", "train.roles.plant.epochs=1")
    run = finish(tiny_config(tmp_path / "run", *more, "scores=[odd]"))
    assert "plant" in run.roles
    assert not run.others
