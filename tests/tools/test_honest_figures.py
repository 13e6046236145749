"""Figures of cells: equal to plain formulas, the same draws for all scores, a difference that is none is a tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rayclean.schema import DROPPED, NO_LABEL, Array
from tools import honest_figures
from tools.honest_data import Rows
from tools.honest_figures import (
    DrawnAuroc,
    best_of,
    calibration_error,
    classed_figures,
    differences,
    filled,
    verified_figures,
)
from tools.honest_ways import Judged


def judged(right: Array, predicted: Array | None = None, **scores: Array) -> Judged:
    """What rayclean says, made by hand."""
    likeliest = np.zeros(len(right), np.int64) if predicted is None else predicted
    return Judged(right, likeliest, scores, {})


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_auroc_of_rows_that_count_several_times_is_that_of_the_repeated_rows(rows: list[tuple[int, bool, int]]) -> None:
    values, clean, times = (np.array(column) for column in zip(*rows, strict=True))
    found = DrawnAuroc(values.astype(float), clean)(times.astype(float))
    repeated = np.repeat(clean, times)
    if repeated.all() or not repeated.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(repeated, np.repeat(values, times)))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest_figures, "DRAWS", 100)


@pytest.mark.usefixtures("few_draws")
def test_a_score_is_better_by_more_than_chance_or_ties() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random(400) < 0.6
    good, bad = clean + rng.normal(0, 0.5, 400), clean + rng.normal(0, 2, 400)
    found = differences(good, {"bad": bad, "same": good * 3, "better": clean * 1.0}, clean, seed=0)
    assert [found[name]["verdict"] for name in ("bad", "same", "better")] == ["more", "tie", "less"]
    assert found["bad"]["difference"] == pytest.approx(roc_auc_score(clean, good) - roc_auc_score(clean, bad))
    assert found["bad"]["low"] < found["bad"]["difference"] < found["bad"]["high"]
    assert found["same"]["low"] == found["same"]["difference"] == found["same"]["high"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_the_larger_of_both_kinds_of_bins(rows: list[tuple[float, bool]]) -> None:
    right, clean = (np.array(column) for column in zip(*rows, strict=True))
    pairs = sorted(zip(right, clean, strict=True), key=lambda pair: pair[0])
    wide = [[pair for pair in pairs if min(int(pair[0] * 15), 14) == b] for b in range(15)]
    sizes = [len(pairs) // 10 + (b < len(pairs) % 10) for b in range(10)]
    massive = [[pairs[i] for i in range(sum(sizes[:b]), sum(sizes[: b + 1]))] for b in range(10)]
    errors = [sum(abs(sum(p - c for p, c in each)) for each in bins) / len(pairs) for bins in (wide, massive)]
    assert calibration_error(right, clean) == pytest.approx(max(errors), abs=1e-9)


def test_what_is_undefined_lies_in_the_middle() -> None:
    np.testing.assert_array_equal(filled(np.array([1.0, np.nan, 2.0, 7.0])), [1, 2, 2, 7])
    np.testing.assert_array_equal(filled(np.full(2, np.nan)), [0, 0])


def test_the_best_score_is_the_first_of_equals() -> None:
    clean = np.array([True, False, True, False])
    good = np.array([3.0, 1, 4, 2])
    assert best_of({"bad": -good, "good": good, "twin": good}, clean) == "good"


def test_rows_of_no_class_are_left_out_where_errors_of_a_class_are_meant() -> None:
    rows = Rows(np.array([0, 0, 1, 1]), np.array([0, -1, 0, 1]), 2, np.zeros((4, 1)))
    found = classed_figures(judged(np.array([0.9, 0.95, 0.1, 0.8]), loss=np.array([0.0, 9, 1, 2])), rows)
    assert found["label_score"]["auroc"] == 1
    assert (found["best"], found["single"]["auroc"]) == ("loss", 0.5)


def test_verified_rows_are_judged_by_and_left_out_of_the_figures() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(900) < 0.1, -1, rng.integers(0, 3, 900))
    rows = Rows(np.where(truth < 0, 0, truth), truth, 3, np.zeros((900, 1)))
    seen = []

    def judge(verified: Array) -> Judged:
        seen.append(verified)
        return judged(np.where(verified == NO_LABEL, rows.clean, 0.5))  # right of all others, unsure of the verified

    found = verified_figures(judge, rows, seed=0, num_draws=3)
    assert [int((each != NO_LABEL).sum()) for each in seen] == [100, 100, 100, 400, 400, 400]
    for each in seen:
        looked_at = each != NO_LABEL
        np.testing.assert_array_equal(each[looked_at], np.where(truth < 0, DROPPED, truth)[looked_at])
    assert len({each.tobytes() for each in seen}) == 6
    for number in ("100", "400"):
        assert found[number] == {"draws": 3, "calibration_error": 0, "noise_rate_error": 0}
