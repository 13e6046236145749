"""Lessons: which rows are trained on, with which labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayclean.learn.lessons import largest_losses, relabelled, retrain_cut, retrain_predicted, without

SCORE = st.floats(0, 1, width=32)
ROWS = st.lists(st.tuples(st.integers(0, 4), SCORE, st.integers(-1, 4), SCORE), min_size=1, max_size=30)


@given(ROWS, SCORE, SCORE)
def test_a_row_keeps_its_label_or_takes_a_sure_prediction_or_goes(
    rows: list[tuple[int, float, int, float]], cut: float, sure: float
) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    labels, score, predicted, predicted_score = columns
    found = retrain_predicted(labels, score, predicted, predicted_score, cut, sure)
    expected = [y if s >= cut else (k if p >= sure else -1) for y, s, k, p in rows]
    assert found.tolist() == expected
    kept = retrain_cut(labels, score, cut)
    assert kept.tolist() == [y if s >= cut else -1 for y, s, _, _ in rows]
    assert (found[kept >= 0] == kept[kept >= 0]).all()


def test_a_row_that_is_left_out_stays_out() -> None:
    labels = np.array([2, -1, 1], np.int32)
    assert retrain_cut(labels, np.ones(3), 0.5).tolist() == [2, -1, 1]
    assert without(labels, np.array([True, False, False])).tolist() == [-1, -1, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30), st.integers(0, 40))
def test_the_largest_losses_go_ties_by_row(rows: list[tuple[int, bool]], count: int) -> None:
    losses, among = np.array([loss for loss, _ in rows], float), np.array([there for _, there in rows])
    taken = largest_losses(losses, among, count)
    order = sorted(np.flatnonzero(among), key=lambda row: (-losses[row], row))
    assert set(np.flatnonzero(taken)) == set(order[:count])


def test_removed_rows_get_a_sure_label_and_the_rest_keep_theirs() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.05, 0.95]])
    labels = np.array([1, -1, -1, -1], np.int32)
    assert relabelled(labels, probabilities, 0.8).tolist() == [1, -1, -1, 1]  # above S, not at it
    assert relabelled(labels, probabilities, 0.5).tolist() == [1, 1, 1, 1]
