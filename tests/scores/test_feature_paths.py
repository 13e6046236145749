"""Paths between features: the same numbers as walking between images with a linear network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rayclean.schema import Array
from rayclean.scores import feature_paths as module
from rayclean.scores.feature_paths import feature_paths
from rayclean.scores.interpolation import path_means, walk_block
from rayclean.scores.pairs import undirected_pairs

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, CLASSES, SHAPE = 23, 4, (3, 2, 2)


@pytest.fixture
def lists() -> Array:
    """(N, 5) neighbours; some rows have fewer, one of them in the middle of its list, and two have none."""
    rng = np.random.default_rng(1)
    found = np.array([rng.choice(np.delete(np.arange(ROWS), row), 5, replace=False) for row in range(ROWS)])
    found[3, 2:] = found[4, 1] = found[7] = found[20] = -1
    return found


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("block", [4096, 5])
def test_they_equal_walks_of_a_linear_network(
    steps: int, block: int, lists: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", block)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(ROWS, *SHAPE)))
    weight, bias = torch.from_numpy(rng.normal(size=(12, CLASSES))), torch.from_numpy(rng.normal(size=CLASSES))
    labels = rng.integers(0, CLASSES, ROWS)
    logits = (images.reshape(ROWS, -1) @ weight + bias).numpy()

    def probabilities(batch: torch.Tensor) -> torch.Tensor:
        return torch.softmax(batch.reshape(len(batch), -1) @ weight + bias, dim=1)

    own = np.pad(probabilities(images).numpy(), ((0, 0), (0, 1)))
    pairs = undirected_pairs(np.arange(ROWS), lists)
    part, _ = walk_block(pairs, lambda rows: images[rows], lambda rows: own[rows], probabilities, steps, 7)
    sums, num_paths = np.zeros_like(own), np.zeros(ROWS, np.int64)
    sums[part.rows], num_paths[part.rows] = part.sums, part.num_paths
    expected = path_means(own, sums, num_paths, steps, labels)
    found = feature_paths(logits, logits, lists, steps, labels)
    np.testing.assert_allclose(found.belief, expected.belief[:, :-1], rtol=1e-9)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-9)
    np.testing.assert_allclose(found.one_minus, expected.one_minus, rtol=1e-9)
    np.testing.assert_allclose(found.belief.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(found.belief[7], own[7, :-1], rtol=1e-12)


def test_rows_may_be_some_of_those_that_are_neighbours(lists: Array) -> None:
    rng = np.random.default_rng(0)
    logits, labels, some = rng.normal(size=(ROWS, CLASSES)), rng.integers(0, CLASSES, ROWS), np.array([2, 7, 20, 11])
    whole = feature_paths(logits, logits, lists, 4, labels)
    part = feature_paths(logits[some], logits, lists[some], 4, labels[some])
    for mine, its in zip(part, whole, strict=True):
        np.testing.assert_array_equal(mine, its[some])


def test_no_rows_have_no_paths() -> None:
    none = np.empty((0, CLASSES))
    assert feature_paths(none, none, np.empty((0, 3), int), 4, np.empty(0, int)).score.shape == (0,)
