"""Doubts: what is worthless is said to be so, what is good is not, however many rows there are of each class."""

from __future__ import annotations

import numpy as np
import pytest

from rayclean.merge.blind import fit_blind
from rayclean.merge.doubts import _error, chance_doubt, moved_doubt, near_doubt, seen_doubt
from rayclean.schema import Array

SHARES = {"balanced": [0.25, 0.25, 0.25, 0.25], "unbalanced": [0.9, 0.06, 0.02, 0.02], "two": [0.5, 0.5]}
each_balance = pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES.keys())


def made(num_rows: int, shares: list[float], noise: float = 0.2, seed: int = 0) -> tuple[Array, Array, Array]:
    """Beliefs that know the true class, labels of which some are wrong, and labels of three near rows."""
    rng, num_classes = np.random.default_rng(seed), len(shares)
    truth = rng.permutation(np.repeat(np.arange(num_classes), np.ceil(np.array(shares) * num_rows).astype(int)))
    wrong = rng.random((len(truth), 4)) < noise
    drawn = np.where(wrong, rng.integers(0, num_classes, wrong.shape), truth[:, None])
    beliefs = 0.1 * rng.dirichlet(np.ones(num_classes), len(truth)) + 0.9 * np.eye(num_classes)[truth]
    return beliefs, drawn[:, 0], drawn[:, 1:]


@each_balance
@pytest.mark.parametrize("num_rows", [1, 2, 3, 6, 20, 100, 2000])
def test_what_is_good_is_not_doubted(num_rows: int, shares: list[float]) -> None:
    for seed in range(10):
        beliefs, labels, near = made(num_rows, shares, 0.0, seed)
        assert not chance_doubt(beliefs, labels)
        assert not near_doubt(near, labels)


@each_balance
def test_beliefs_that_differ_from_wrong_labels_are_not_doubted(shares: list[float]) -> None:
    for seed in range(10):
        beliefs, labels, near = made(1000, shares, 0.3, seed)
        doubts = chance_doubt(beliefs, labels), near_doubt(near, labels), seen_doubt(beliefs, labels, near)
        assert doubts == ("", "", "")


@each_balance
def test_another_order_is_doubted(shares: list[float]) -> None:
    for seed in range(10):
        beliefs, labels, near = made(2000, shares, seed=seed)
        other = np.random.default_rng(seed).permutation(len(labels))
        assert "by chance" in chance_doubt(beliefs[other], labels)
        assert "by chance" in near_doubt(near[other], labels)
        near[::3, 1:] = -1
        near[::7] = -1
        assert "by chance" in near_doubt(near[other], labels)
        assert not near_doubt(near, labels)


def test_a_network_that_has_learned_nothing_is_doubted() -> None:
    _, labels, _ = made(500, SHARES["balanced"])
    assert chance_doubt(np.full((500, 4), 0.25), labels)
    assert chance_doubt(np.random.default_rng(0).dirichlet(np.ones(4), 500), labels)


def test_labels_that_are_counted_from_one_are_doubted() -> None:
    beliefs, labels, _ = made(2000, SHARES["balanced"])
    shifted = (labels + 1) % 4
    assert "by chance" in chance_doubt(beliefs, shifted)
    doubt = moved_doubt(fit_blind(beliefs, shifted, 2.0), shifted)
    assert "by 1 in all of them" in doubt
    assert "counted from 1" in doubt
    assert not moved_doubt(fit_blind(beliefs, labels, 2.0), labels)
    others = np.array([1, 0, 3, 2])[labels]
    assert "another order of the classes" in moved_doubt(fit_blind(beliefs, others, 2.0), others)


@each_balance
def test_beliefs_that_have_learned_the_labels_are_doubted(shares: list[float]) -> None:
    beliefs, labels, near = made(2000, shares)
    num_classes = len(shares)
    learned = 0.1 * beliefs + 0.9 * np.eye(num_classes)[labels]
    assert "as where models have learned them" in seen_doubt(learned, labels, near)
    assert "as where models have learned them" in seen_doubt(learned, labels, near[:, :0])


def test_beliefs_that_have_learned_some_of_many_wrong_labels_are_doubted() -> None:
    beliefs, labels, near = made(3000, [0.1] * 10, noise=0.6)
    truth, rng = beliefs.argmax(axis=1), np.random.default_rng(0)
    partly = 0.1 * beliefs + 0.9 * np.eye(10)[np.where(rng.random(3000) < 0.9, labels, truth)]
    assert "though by near rows" in seen_doubt(partly, labels, near)
    assert not seen_doubt(partly, labels, near[:, :0]), "without near rows nothing tells"
    assert not seen_doubt(beliefs, labels, near)


def test_one_label_alone_and_rows_without_near_ones_say_nothing() -> None:
    assert not chance_doubt(np.full((5, 1), 1.0), np.zeros(5, int))
    assert not chance_doubt(np.full((5, 3), 1 / 3), np.zeros(5, int))
    assert not near_doubt(np.full((5, 3), -1), np.arange(5) % 2)
    assert not near_doubt(np.empty((5, 0), int), np.arange(5) % 2)
    assert not near_doubt(np.zeros((5, 3), int), np.zeros(5, int))


def test_the_standard_error_is_that_of_all_orders() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.choice(3, 60, p=[0.8, 0.15, 0.05]), rng.choice(3, 60, p=[0.6, 0.3, 0.1])
    found = [(rng.permutation(one) == other).mean() for _ in range(4000)]
    shares = [np.bincount(each, minlength=3) / 60 for each in (one, other)]
    assert np.std(found) == pytest.approx(_error(shares[0], shares[1], 60), rel=0.05)
