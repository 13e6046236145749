from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rayclean.evaluate.metrics import auroc, average_precision, defined_only, expected_calibration_error, flag_metrics

Rows = list[tuple[float, bool]]
# Few different values, so that ties are common; infinities are legal scores.
rows = st.lists(st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf]), st.booleans()), max_size=25)
stated = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=40)


def arrays(pairs: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, clean = [score for score, _ in pairs], [is_clean for _, is_clean in pairs]
    return np.array(scores, dtype=np.float64), np.array(clean, dtype=np.bool_)


@given(rows)
def test_auroc_counts_the_pairs(pairs: Rows) -> None:
    clean = [score for score, is_clean in pairs if is_clean]
    wrong = [score for score, is_clean in pairs if not is_clean]
    won = [1.0 if c > w else 0.5 if c == w else 0.0 for c in clean for w in wrong]
    expected = sum(won) / len(won) if won else math.nan
    assert auroc(*arrays(pairs)) == pytest.approx(expected, nan_ok=True)


@given(rows)
def test_auroc_of_reversed_scores_is_the_rest(pairs: Rows) -> None:
    scores, clean = arrays(pairs)
    assert auroc(-scores, clean) == pytest.approx(1.0 - auroc(scores, clean), nan_ok=True)


@given(rows)
def test_average_precision_walks_up_the_scores(pairs: Rows) -> None:
    scores, clean = arrays(pairs)
    num_wrong = int((~clean).sum())
    expected = 0.0 if num_wrong else math.nan
    for score in np.unique(scores):
        taken = scores <= score
        gained = int((~clean & (scores == score)).sum())
        expected += gained / max(num_wrong, 1) * (~clean)[taken].mean()
    assert average_precision(scores, clean) == pytest.approx(expected, nan_ok=True)


@given(stated, st.floats(0.0, 1.0))
def test_flag_metrics_are_the_counts(pairs: Rows, threshold: float) -> None:
    found = flag_metrics(*arrays(pairs), threshold)
    flagged = [is_clean for probability, is_clean in pairs if probability < threshold]
    wrong = [probability for probability, is_clean in pairs if not is_clean]
    hits = flagged.count(False)
    assert (found.num_flagged, found.num_wrong) == (len(flagged), len(wrong))
    assert found.precision == pytest.approx(hits / len(flagged) if flagged else math.nan, nan_ok=True)
    assert found.recall == pytest.approx(hits / len(wrong) if wrong else math.nan, nan_ok=True)
    if hits:
        harmonic = 2 / (1 / found.precision + 1 / found.recall)
        assert found.f1 == pytest.approx(harmonic)


@given(stated, st.integers(1, 20))
def test_calibration_is_the_weighted_gap_of_the_bins(pairs: Rows, num_bins: int) -> None:
    probabilities, clean = arrays(pairs)
    curve = expected_calibration_error(probabilities, clean, num_bins)
    bins = [min(int(p * num_bins), num_bins - 1) for p in probabilities]
    expected = 0.0
    for b in range(num_bins):
        inside = np.array(bins) == b
        assert curve.num_rows[b] == inside.sum()
        assert math.isnan(curve.clean_share[b]) == (not inside.any())
        if inside.any():
            gap = clean[inside].mean() - probabilities[inside].mean()
            expected += inside.sum() / len(pairs) * abs(gap)
    assert curve.error == pytest.approx(expected)


def test_true_probabilities_are_calibrated_and_boasts_are_not() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(50_000).astype(np.float32)
    clean = rng.random(50_000) < probabilities
    assert expected_calibration_error(probabilities, clean).error < 0.02
    assert expected_calibration_error(np.ones(50_000), clean).error == pytest.approx(0.5, abs=0.02)


def test_no_rows_give_no_figures() -> None:
    empty = np.zeros(0), np.zeros(0, dtype=np.bool_)
    assert math.isnan(auroc(*empty))
    assert math.isnan(average_precision(*empty))
    assert math.isnan(expected_calibration_error(*empty).error)


def test_undefined_scores_are_refused_and_counted_out() -> None:
    scores, clean = np.array([0.1, np.nan, 0.9]), np.array([False, True, True])
    for metric in (auroc, average_precision, flag_metrics, expected_calibration_error):
        with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
            metric(scores, clean)
    kept_scores, kept_clean, num_undefined = defined_only(scores, clean)
    assert num_undefined == 1
    assert auroc(kept_scores, kept_clean) == 1.0


def test_bad_shapes_and_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        auroc(np.zeros(2), np.ones(3, dtype=np.bool_))
    with pytest.raises(ValueError, match=r"in \[0, 1\] expected"):
        expected_calibration_error(np.array([1.5]), np.array([True]))
