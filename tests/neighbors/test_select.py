"""The exact choice: the same list from any backend that proposes the nearest, however it breaks ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.neighbors.select import CHUNK, EXTRA_CANDIDATES, Neighbors, Points, nearest
from rayclean.schema import NO_ROW, Array


def points_of(features: Array, labels: Array, digests: Array, rows: Array | None = None) -> Points:
    rows = np.arange(len(features)) if rows is None else rows
    position_of = np.argsort(rows)
    pixels = np.stack([digests, digests], axis=1).astype(np.uint64)
    by_row = labels.astype(np.int32)[position_of], pixels[position_of]
    return Points(rows, *by_row, draws_of(np.arange(len(rows))), lambda positions: features[positions])


def draws_of(rows: Array) -> Array:
    """Draw ids that are in another order than the rows, and not all different."""
    return (rows * 7919 % 13).astype(np.uint64)


def brute_force(features: Array, labels: Array, digests: Array, rows: Array, queries: Array, num: int) -> Neighbors:
    """By the definition, one query after the other, in float64."""
    found = np.full((len(queries), num), NO_ROW)
    distances = np.full((len(queries), num), np.inf)
    wide = features.astype(np.float64)
    for i, query in enumerate(queries):
        others = [
            (float(((wide[j] - wide[query]) ** 2).sum()), int(draws_of(rows[j])), int(rows[j]))
            for j in range(len(features))
            if j != query and not (digests[j] == digests[query] and labels[j] == labels[query])
        ]
        for place, (distance, _, row) in enumerate(sorted(others)[:num]):
            found[i, place], distances[i, place] = row, distance
    return Neighbors(found, distances)


def proposer(features: Array, seed: int) -> Callable[[Array, int], Array]:
    """The k nearest by float32 distance, ties as they fall."""
    base = features.astype(np.float32)
    rng = np.random.default_rng(seed)

    def propose(queries: Array, k: int) -> Array:
        result = np.full((len(queries), k), NO_ROW)
        for i, query in enumerate(queries):
            shuffled = rng.permutation(len(base))
            distances = ((base[shuffled] - query) ** 2).sum(axis=1)
            best = shuffled[np.argsort(distances, kind="stable")][:k]
            result[i, : len(best)] = best
        return result

    return propose


def random_points(num_points: int, dim: int, kinds: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Features of few distinct values, labels, digests that repeat only with equal features, shuffled rows."""
    rng = np.random.default_rng(seed)
    digests = rng.integers(0, kinds, num_points)
    features = np.random.default_rng(seed + 1).integers(0, 5, (kinds, dim)).astype(np.float16)[digests]
    return features, rng.integers(0, 2, num_points), digests, rng.permutation(num_points)


@settings(max_examples=60, deadline=None)
@given(
    num_points=st.integers(1, 60),
    dim=st.integers(1, 4),
    kinds=st.integers(1, 60),
    num=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_it_equals_a_search_by_the_definition(num_points: int, dim: int, kinds: int, num: int, seed: int) -> None:
    features, labels, digests, rows = random_points(num_points, dim, kinds, seed)
    queries = np.random.default_rng(seed).permutation(num_points)
    points = points_of(features, labels, digests, rows)
    found = nearest(points, queries, proposer(features, seed), num)
    expected = brute_force(features, labels, digests, rows, queries, num)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_a_list_that_copies_made_short_is_filled() -> None:
    num, copies = 3, 3 * (3 + EXTRA_CANDIDATES)
    features = np.zeros((copies + 4, 1), np.float16)
    features[copies:, 0] = [1, 2, 3, 4]
    digests = np.r_[np.zeros(copies, int), [1, 2, 3, 4]]
    points = points_of(features, np.zeros(len(features)), digests)
    asked: list[int] = []
    propose = proposer(features, 0)

    def counted(queries: Array, k: int) -> Array:
        asked.append(k)
        return propose(queries, k)

    found = nearest(points, np.array([0]), counted, num)
    assert found.rows.tolist() == [[copies, copies + 1, copies + 2]]
    assert asked == [11, 22, 44]


def test_it_ends_where_the_points_end() -> None:
    points = points_of(np.zeros((5, 2), np.float16), np.zeros(5), np.zeros(5))
    found = nearest(points, np.arange(5), proposer(np.zeros((5, 2), np.float16), 0), 2)
    assert (found.rows == NO_ROW).all()
    assert np.isinf(found.distances).all()


def test_queries_are_answered_alike_however_many_are_asked() -> None:
    features, labels, digests, rows = random_points(CHUNK + 9, 3, 300, 0)
    features = features + (np.arange(CHUNK + 9)[:, None] % 7 / 4).astype(np.float16)
    points = points_of(features, labels, digests, rows)
    every = np.arange(CHUNK + 9)
    together = nearest(points, every, proposer(points.features(every), 1), 4)
    for position in (0, CHUNK - 1, CHUNK, CHUNK + 8):
        alone = nearest(points, every[position : position + 1], proposer(points.features(every), 2), 4)
        np.testing.assert_array_equal(alone.rows[0], together.rows[position])


@pytest.mark.parametrize("tied", [EXTRA_CANDIDATES, 3 * EXTRA_CANDIDATES])
def test_of_many_that_are_equally_far_the_smallest_draws_are_chosen(tied: int) -> None:
    features = np.zeros((tied + 1, 1), np.float16)
    features[1:] = 1
    points = points_of(features, np.zeros(tied + 1), np.arange(tied + 1))
    for seed in range(5):
        found = nearest(points, np.array([0]), proposer(features, seed), 4)
        others = sorted(range(1, tied + 1), key=lambda row: (int(draws_of(np.array(row))), row))
        assert found.rows.tolist() == [others[:4]]
