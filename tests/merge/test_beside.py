"""Near rows' labels beside a network's belief: which of them is believed, and how many labels are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from rayclean.merge.beside import believed, fit_beside, network_gain
from rayclean.schema import Array
from rayclean.scores.sources import combined
from rayclean.scores.vote import neighbor_shares
from tests.merge.beliefs import made, symmetric

NUM_ROWS, NUM_CLASSES = 1500, 5


@pytest.fixture
def rows() -> tuple[Array, Array, Array, Array]:
    """Beliefs that know the class, labels, 20 near labels of which half are of the same class, and the truth."""
    rng = np.random.default_rng(1)
    beliefs, labels, truth = made(NUM_ROWS, symmetric(NUM_CLASSES, 0.3))
    same = np.stack([rng.choice(np.flatnonzero(truth == k), 20) for k in truth])
    others = rng.integers(0, NUM_ROWS, same.shape)
    near = labels[np.where(rng.random(same.shape) < 0.5, same, others)]
    near[::7, 15:] = -1
    near[5] = -1
    return beliefs, labels, near, truth


Rows = tuple[Array, Array, Array, Array]


def test_what_is_believed(rows: Rows) -> None:
    beliefs, _, near, _ = rows
    shares = neighbor_shares(near, NUM_CLASSES)
    assert believed(beliefs, near, "without") is beliefs
    assert believed(beliefs, None, "with") is beliefs
    np.testing.assert_array_equal(believed(beliefs, near, "alone"), shares)
    np.testing.assert_array_equal(believed(beliefs, near, "with"), combined([beliefs, shares]))


def test_a_network_that_knows_the_class_adds_to_near_rows(rows: Rows) -> None:
    beliefs, labels, near, truth = rows
    by_heart = np.eye(NUM_CLASSES)[np.random.default_rng(0).permutation(labels)]
    unsure = np.full_like(beliefs, 1 / NUM_CLASSES)
    knowing = 0.1 * beliefs + 0.9 * np.eye(NUM_CLASSES)[truth]
    gains = [network_gain(each, near) for each in (by_heart, unsure, beliefs, knowing)]
    assert gains[0] < 0.01
    assert gains[1] == pytest.approx(0, abs=1e-3)
    assert gains[1] < gains[2] < gains[3]
    assert network_gain(beliefs, np.full_like(near, -1)) == 0


def test_near_rows_are_believed_alone_where_the_network_adds_nothing(rows: Rows) -> None:
    beliefs, labels, near, truth = rows
    alone = fit_beside(np.full_like(beliefs, 1 / NUM_CLASSES), near, labels)
    assert alone.sources.near == "alone"
    both = fit_beside(0.1 * beliefs + 0.9 * np.eye(NUM_CLASSES)[truth], near, labels)
    assert both.sources.near == "with"
    for model in (alone, both):
        assert model.reliable
        assert model.noise is not None
        assert model.noise[0] < (labels != truth).mean() < model.noise[1]


def test_the_share_of_wrong_labels_lies_between_the_two(rows: Rows) -> None:
    beliefs, labels, near, truth = rows
    leaning = 0.1 * beliefs + 0.4 * np.eye(NUM_CLASSES)[truth] + 0.5 * np.eye(NUM_CLASSES)[labels]
    model = fit_beside(leaning, near, labels)
    assert model.noise is not None
    found = model.posterior(believed(leaning, near, model.sources.near), labels).label_score
    assert model.noise[0] <= 1 - found.mean() <= model.noise[1]
