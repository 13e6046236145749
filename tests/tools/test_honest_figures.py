"""Figures of cells: equal to plain formulas, the same draws for all scores, a difference that is none is a tie."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rayclean.evaluate.metrics import expected_calibration_error
from rayclean.export.cut import caution_of
from rayclean.schema import Array
from tools.cells import honest_figures
from tools.cells.honest_data import Rows
from tools.cells.honest_figures import (
    DrawnAuroc,
    best_of,
    calibration_error,
    classed_figures,
    differences,
    filled,
    removed_figures,
)
from tools.cells.honest_steps import Judged


def judged(right: Array, verified: list[int | None] | None = None, **scores: Array) -> Judged:
    """What rayclean says, made by hand; all labels and predictions are 0."""
    columns = {name: pa.array(np.zeros(len(right), np.int32)) for name in ("given_label", "predicted_label")}
    columns |= {"row": pa.array(np.arange(len(right))), "label_score": pa.array(right.astype(np.float32))}
    columns |= {"predicted_score": columns["label_score"], "shard": pa.array(["s"] * len(right))}
    columns |= {"key": pa.array([str(row) for row in range(len(right))])}
    columns |= {"verified_label": pa.array(verified or [None] * len(right), pa.int32())}
    return Judged(pa.table(columns | {f"score_{name}": pa.array(values) for name, values in scores.items()}), {})


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


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 3)), min_size=1, max_size=60))
def test_the_calibration_error_is_the_larger_of_both_kinds_of_bins(rows: list[tuple[float, bool, int]]) -> None:
    right, clean, weights = (np.array(column) for column in zip(*rows, strict=True))
    lines = sorted(rows, key=lambda row: row[0])
    wide = [[row for row in lines if min(int(row[0] * 15), 14) == b] for b in range(15)]
    sizes = [len(lines) // 10 + (b < len(lines) % 10) for b in range(10)]
    massive = [[lines[i] for i in range(sum(sizes[:b]), sum(sizes[: b + 1]))] for b in range(10)]
    for times, found in ((weights, calibration_error(right, clean, weights)), (None, calibration_error(right, clean))):
        errors = [
            sum(abs(sum((p - c) * (1 if times is None else w) for p, c, w in each)) for each in bins)
            for bins in (wide, massive)
        ]
        total = len(rows) if times is None else times.sum()
        assert found == pytest.approx(max(errors) / total, abs=1e-9)
    assert calibration_error(right, clean) >= expected_calibration_error(right, clean).error - 1e-9


def test_what_goes_is_what_export_lets_go() -> None:
    right = np.array([0.01, 0.05, 0.1, 0.2, 0.6, 0.9])
    clean = np.array([False, False, True, True, False, True])
    # Wrong are .99, .95, .9 and .8 of rows like these: four have a mean of .91, five one of .808.
    found = removed_figures(judged(right), clean, 0.0)
    assert found == {"wrong": 0.5, "share": pytest.approx(4 / 6), "recall": pytest.approx(2 / 3)}
    caution = caution_of({"noise_rate": 0.5, "noise_rate_low": 0.3, "calibrated": "none"})
    assert removed_figures(judged(right), clean, caution) == {
        "wrong": 1.0,
        "share": pytest.approx(2 / 6),
        "recall": pytest.approx(2 / 3),
    }


def test_what_people_have_verified_is_no_part_of_what_goes() -> None:
    right, clean = np.array([0.01, 0.02, 0.03, 1.0]), np.array([False, True, False, True])
    found = removed_figures(judged(right, verified=[1, None, None, 0]), clean, 0.0)
    assert found == {"wrong": 0.5, "share": 1.0, "recall": 1.0}
    nothing = removed_figures(judged(np.full(4, 0.9)), clean, 0.0)
    assert nothing == {"wrong": None, "share": 0.0, "recall": 0.0}


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
