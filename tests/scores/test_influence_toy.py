"""Influential Rank's toy example (section 3.4): what of it holds over many seeds.

The paper shows 40 flipped points of 100, of which 20 points are removed by the first iteration and 20 more by the
third. The numbers of points removed are about these (17 and 42 in the mean of 200 seeds). That they are the flipped
ones is not found: 59% of the first and 56% of all removed points are, where chance would give 40%; see
`tools.cells.toy_influence`. So the laws are on 20 seeds at a time, and their bounds three standard errors away.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rayclean.schema import Array
from tools.cells.toy_influence import NUM_ITERATIONS, Toy, draw_points, main, run_toy

NUM_SEEDS = 20

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def toys(one_thread: None) -> list[Toy]:
    return [run_toy(seed) for seed in range(NUM_SEEDS)]


def counts(toys: list[Toy], num_iterations: int) -> Array:
    """(S, 2): points removed, flipped ones of them, of each seed."""
    return np.array([toy.counts(num_iterations) for toy in toys])


def test_as_many_points_are_removed_as_in_the_paper(toys: list[Toy]) -> None:
    assert 14 < counts(toys, 1)[:, 0].mean() < 23
    assert 36 < counts(toys, NUM_ITERATIONS)[:, 0].mean() < 48


@pytest.mark.parametrize("num_iterations", [1, NUM_ITERATIONS])
def test_more_of_them_are_flipped_than_by_chance(toys: list[Toy], num_iterations: int) -> None:
    removed, flipped = counts(toys, num_iterations).T
    assert flipped.sum() / removed.sum() > 0.5
    assert (flipped > 0.4 * removed).mean() > 0.75


def test_no_point_is_removed_twice_and_the_rest_is_kept(toys: list[Toy]) -> None:
    for toy in toys:
        removed = np.concatenate(toy.removed)
        assert len(np.unique(removed)) == len(removed) == 100 - len(toy.kept(NUM_ITERATIONS).x)
        assert toy.kept(0).x.tolist() == toy.points.x.tolist()


def test_exactly_the_asked_number_of_labels_is_flipped() -> None:
    points = draw_points(100, 40, np.random.default_rng(0))
    assert points.flipped.sum() == 40
    assert points.truth.tolist() == [int(x2 >= 3 * x1**2) for x1, x2 in points.x]


def test_the_same_seed_removes_the_same_points(toys: list[Toy]) -> None:
    again = run_toy(0)
    assert [rows.tolist() for rows in again.removed] == [rows.tolist() for rows in toys[0].removed]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "toy.png")])
    assert (tmp_path / "toy.png").stat().st_size > 10_000
    assert "after 3 iterations" in capsys.readouterr().out
