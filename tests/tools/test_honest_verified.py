"""Verified rows in cells: who is looked at is known and left out, whoever chooses them, and the rest stands for all."""

from __future__ import annotations

import numpy as np
import pytest

from rayclean.schema import DROPPED, NO_LABEL, Array
from tests.tools.test_honest_figures import judged
from tools.cells.honest_data import Rows
from tools.cells.honest_steps import Judged
from tools.cells.honest_verified import CHOOSERS, proposed_rows, random_rows, verified_figures

NUM_ROWS = 900


def made_rows() -> Rows:
    """A third of the labels is wrong, rows of no class among them; all labels are 0."""
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(NUM_ROWS) < 0.1, -1, rng.integers(0, 3, NUM_ROWS))
    return Rows(np.zeros(NUM_ROWS, np.int64), truth, 3, np.zeros((NUM_ROWS, 1)))


@pytest.mark.parametrize("kind", CHOOSERS)
def test_verified_rows_are_judged_by_and_left_out_of_the_figures(kind: str) -> None:
    rows, seen = made_rows(), []

    def judge(verified: Array) -> Judged:
        seen.append(verified)
        # Right of all others, unsure of the verified.
        labels = [None if each == NO_LABEL else max(int(each), -1) for each in verified]
        found = judged(np.where(verified == NO_LABEL, rows.clean, 0.5), labels)
        return found._replace(summary={"noise_rate": 0.3, "calibrated": "verified"})

    found = verified_figures(judge, rows, CHOOSERS[kind], seed=0, num_draws=3)
    assert [int((each != NO_LABEL).sum()) for each in seen] == [0, 100, 100, 100, 400, 400, 400]
    for each in seen:
        looked_at = each != NO_LABEL
        np.testing.assert_array_equal(each[looked_at], np.where(rows.truth < 0, DROPPED, rows.truth)[looked_at])
    assert len({each.tobytes() for each in seen}) == 7
    for number in ("100", "400"):
        assert found[number]["draws"] == 3
        assert found[number]["calibration_error"] == found[number]["noise_rate_error"] == 0
        assert found[number]["removed_wrong"] == pytest.approx(0.9, abs=0.01)  # as many right ones go as .9 allows
        assert found[number]["sampled_rate_error"] < 0.06


def test_proposed_rows_are_more_often_unsure_and_the_rest_stands_for_all_rows() -> None:
    right = np.repeat([0.02, 0.5, 0.98], NUM_ROWS // 3)[np.random.default_rng(1).permutation(NUM_ROWS)]
    table = judged(right)
    proposed, random = proposed_rows(table, 30, (0, 0)), random_rows(table, 30, (0, 0))
    assert int(proposed.at.sum()) == int(random.at.sum()) == 30
    assert int((right[proposed.at] == 0.5).sum()) > 15  # where a random row is one in three
    np.testing.assert_array_equal(proposed.stratum, np.searchsorted([0.02, 0.5, 0.98], right))
    for looked in (proposed, random):
        assert looked.weights.sum() == pytest.approx(NUM_ROWS)
    assert np.average(right[~proposed.at], weights=proposed.weights) == pytest.approx(right.mean())
    assert (proposed_rows(table, 30, (0, 1)).at != proposed.at).any()


def test_a_stratum_that_is_looked_at_as_a_whole_has_no_row_to_stand_for_it() -> None:
    looked = random_rows(judged(np.linspace(0, 1, 10)), 10, (0,))
    assert looked.at.all()
    assert len(looked.weights) == 0
