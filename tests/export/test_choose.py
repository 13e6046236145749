"""The choice equals the one by sorting all rows; both sides of a cut fit; nothing hangs on the batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rayclean.export.choose import Decision, Lines, Reason, Rule, judge, settle
from rayclean.export.cut import EVERY_ROW, NEVER, Cut, caution_of, find_cut, key_of, right_of
from rayclean.export.options import ExportOptions
from rayclean.schema import NONE_OF_CLASSES, UNKNOWN, Array

# Few values, so that many rows are equal, and neighbours in float32.
SCORES = [0.0, -0.0, 1e-45, 0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.5, 0.75, 1.0]
scores = st.one_of(st.sampled_from(SCORES), st.floats(0, 1, width=32))
lines_of_rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        scores,
        st.integers(NONE_OF_CLASSES, 2),
        scores,
        st.sampled_from([UNKNOWN, UNKNOWN, NONE_OF_CLASSES, 0, 1, 2]),
    ),
    min_size=1,
    max_size=60,
)
label_rules = st.sampled_from(["given", "verified", "predicted"])


def make_lines(rows: list[tuple[int, float, int, float, int]]) -> Lines:
    given_label, score, predicted, predicted_score, verified = (np.array(each) for each in zip(*rows, strict=True))
    return Lines(
        np.arange(len(rows)),
        given_label.astype(np.int32),
        score.astype(np.float32),
        predicted.astype(np.int32),
        predicted_score.astype(np.float32),
        verified.astype(np.int32),
    )


def in_batches(lines: Lines, size: int) -> Callable[[], Iterator[Lines]]:
    def stream() -> Iterator[Lines]:
        for start in range(0, len(lines.row), size):
            yield Lines(*(column[start : start + size] for column in lines))

    return stream


def decide(lines: Lines, options: ExportOptions, size: int = 7) -> Decision:
    return settle(options, 0.5, in_batches(lines, size)).decide(lines)


def right(lines: Lines, labels: str, sure: float = float(np.float32(0.9))) -> Array:
    """How likely the label to use is right, -1 for rows that never stay: said once more, row by row."""
    found = []
    for _, label, score, predicted, predicted_score, verified in zip(
        *(column.tolist() for column in lines), strict=True
    ):
        if verified != UNKNOWN:
            wrong = verified == NONE_OF_CLASSES or (labels == "given" and verified != label)
            found.append(-1.0 if wrong else 1.0)
        elif labels == "predicted" and predicted != label and predicted_score >= sure and predicted_score > score:
            found.append(-1.0 if predicted == NONE_OF_CLASSES else predicted_score)
        else:
            found.append(score)
    return np.array(found)


def by_sorting(lines: Lines, labels: str) -> Array:
    """All rows, those that go first: by how likely they are right, then the larger row first."""
    return np.lexsort((-lines.row, right(lines, labels)))


@given(lines_of_rows, label_rules, st.floats(0, 1))
def test_a_cut_keeps_what_is_at_least_as_likely(
    rows: list[tuple[int, float, int, float, int]], labels: str, cut: float
) -> None:
    lines = make_lines(rows)
    likely = right(lines, labels)
    decision = decide(lines, ExportOptions(cut=cut, labels=labels))
    assert decision.kept.tolist() == ((likely >= float(np.float32(cut))) & (likely >= 0)).tolist()


@given(lines_of_rows, label_rules, st.integers(1, 70), st.integers(1, 70))
def test_a_budget_is_the_first_rows_of_all_sorted(
    rows: list[tuple[int, float, int, float, int]], labels: str, budget: int, size: int
) -> None:
    lines = make_lines(rows)
    order, never = by_sorting(lines, labels), int((right(lines, labels) < 0).sum())
    kept = decide(lines, ExportOptions(budget=budget, labels=labels), size).kept
    goes = max(len(rows) - budget, never)
    assert np.flatnonzero(~kept).tolist() == sorted(order[:goes].tolist())
    kept = decide(lines, ExportOptions(budget=budget, labels=labels, removed=True), size).kept
    goes = min(max(budget, never), len(rows))
    assert np.flatnonzero(~kept).tolist() == sorted(order[:goes].tolist())


@given(lines_of_rows, st.data())
def test_what_stays_and_what_goes_are_two_sides_of_one_cut(
    rows: list[tuple[int, float, int, float, int]], data: st.DataObject
) -> None:
    lines = make_lines(rows)
    assume(len(rows) > 1)
    budget = data.draw(st.integers(1, len(rows) - 1))
    stays = decide(lines, ExportOptions(budget=budget))
    goes = decide(lines, ExportOptions(budget=len(rows) - budget, removed=True))
    assert stays.kept.tolist() == goes.kept.tolist()
    fewer = decide(lines, ExportOptions(budget=max(1, budget - 1)))
    assert not (fewer.kept & ~stays.kept).any()


@given(lines_of_rows, label_rules, st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0]), st.integers(1, 70))
def test_a_precision_takes_the_largest_set_that_has_it(
    rows: list[tuple[int, float, int, float, int]], labels: str, precision: float, size: int
) -> None:
    lines = make_lines(rows)
    order = by_sorting(lines, labels)
    wrong = 1 - np.maximum(right(lines, labels), 0)[order]
    means = np.cumsum(wrong) / np.arange(1, len(rows) + 1)
    assume(np.abs(means - precision).min() > 1e-9 or precision in (0.0, 1.0))
    goes = int((means >= precision).sum())  # the means fall
    kept = decide(lines, ExportOptions(precision=precision, labels=labels), size).kept
    assert np.flatnonzero(~kept).tolist() == sorted(order[:goes].tolist())


@given(lines_of_rows, st.floats(0, 1))
def test_any_precision_is_kept_and_one_row_more_would_break_it(
    rows: list[tuple[int, float, int, float, int]], precision: float
) -> None:
    lines = make_lines(rows)
    order = by_sorting(lines, "given")
    wrong = 1 - np.maximum(right(lines, "given"), 0)[order]
    kept = decide(lines, ExportOptions(precision=precision)).kept
    goes = int((~kept).sum())
    assert sorted(order[:goes].tolist()) == np.flatnonzero(~kept).tolist()
    assert not goes or wrong[:goes].mean() >= precision - 1e-9
    assert goes == len(rows) or wrong[: goes + 1].mean() < precision + 1e-9


def test_a_precision_that_many_equal_rows_reach_divides_them() -> None:
    lines = make_lines([(0, 0.0, 1, 0.5, UNKNOWN)] * 10 + [(0, 0.5, 1, 0.5, UNKNOWN)] * 100)
    kept = decide(lines, ExportOptions(precision=0.75)).kept
    assert np.flatnonzero(~kept).tolist() == [*range(10), *range(100, 110)]  # 10 + 5 of 20 are wrong


@given(lines_of_rows, label_rules, st.integers(1, 70))
def test_batches_do_not_matter(rows: list[tuple[int, float, int, float, int]], labels: str, size: int) -> None:
    lines = make_lines(rows)
    for options in (ExportOptions(budget=5, labels=labels), ExportOptions(precision=0.6, labels=labels)):
        rule = settle(options, 0.5, in_batches(lines, 100))
        assert settle(options, 0.5, in_batches(lines, size)) == replace(rule)
        parts = [rule.decide(part) for part in in_batches(lines, size)()]
        whole = rule.decide(lines)
        assert [np.concatenate(each).tolist() for each in zip(*parts, strict=True)] == [each.tolist() for each in whole]


@given(lines_of_rows, label_rules, st.floats(0, 1))
def test_labels_and_reasons(rows: list[tuple[int, float, int, float, int]], labels: str, cut: float) -> None:
    lines = make_lines(rows)
    decision = decide(lines, ExportOptions(cut=cut, labels=labels))
    for row in range(len(rows)):
        kept, label, reason = (each[row].item() for each in decision)
        given_label, verified, predicted = (each[row].item() for each in (lines.given, lines.verified, lines.predicted))
        if not kept:
            assert label == given_label
            expected = {NONE_OF_CLASSES: Reason.DROPPED, UNKNOWN: Reason.LIKELY_WRONG}.get(
                verified, Reason.VERIFIED_WRONG
            )
            if reason == Reason.NONE_OF_THE_CLASSES:
                assert (labels, verified, predicted) == ("predicted", UNKNOWN, NONE_OF_CLASSES)
                assert lines.predicted_score[row] >= 0.9
            else:
                assert reason == expected or (reason == Reason.LIKELY_WRONG and verified >= 0)
        elif reason == Reason.VERIFIED:
            assert label == verified
        elif reason == Reason.RELABELLED:
            assert (label, labels) == (predicted, "predicted")
            assert verified == UNKNOWN
            assert lines.predicted_score[row] >= 0.9
        else:
            assert (label, reason, verified) == (given_label, Reason.LIKELY_RIGHT, UNKNOWN)
    assert decision.tally().sum() == len(rows)


def test_people_come_first() -> None:
    wrong, right_again, gone = (0, 0.0, 1, 1.0, 2), (0, 1.0, 1, 1.0, 0), (0, 0.9, 1, 1.0, NONE_OF_CLASSES)
    lines = make_lines([wrong, right_again, gone])
    for labels, kept, used in (
        ("given", [False, True, False], [0, 0, 0]),
        ("verified", [True, True, False], [2, 0, 0]),
        ("predicted", [True, True, False], [2, 0, 0]),
    ):
        decision = decide(lines, ExportOptions(cut=0.0, labels=labels))
        assert decision.kept.tolist() == kept
        assert decision.label.tolist() == used


def test_a_prediction_must_be_likelier_than_the_label() -> None:
    lines = make_lines([(0, 0.95, 1, 0.92, UNKNOWN), (0, 0.1, 1, 0.92, UNKNOWN), (0, 0.1, 1, 0.89, UNKNOWN)])
    judged = judge(lines, "predicted", 0.9)
    assert judged.label.tolist() == [0, 1, 0]
    assert judged.reason.tolist() == [Reason.LIKELY_RIGHT, Reason.RELABELLED, Reason.LIKELY_RIGHT]


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_keys_have_the_order_of_probabilities(a: float, b: float) -> None:
    keys = key_of(np.array([a, b], np.float32)).astype(np.int64)
    assert (keys[0] < keys[1]) == (np.float32(a) < np.float32(b))
    assert right_of(key_of(np.float32(a))) == np.float32(a)
    assert NEVER not in keys


@pytest.mark.parametrize("cut", [0.1, 0.3, 0.7, 0.9, 1.0, 0.0])
def test_a_row_exactly_at_the_cut_stays(cut: float) -> None:
    """Also where float32 has a smaller number than the one that was given."""
    assert Cut.at(cut).right == pytest.approx(cut, rel=1e-7)
    lines = make_lines([(0, cut, 0, 1.0, UNKNOWN), (0, np.nextafter(np.float32(cut), np.float32(-1)), 0, 1.0, UNKNOWN)])
    assert decide(lines, ExportOptions(cut=cut)).kept.tolist() == [True, cut == 0]
    assert Cut.at(cut).last_row == EVERY_ROW


def test_a_rule_that_keeps_nothing() -> None:
    lines = make_lines([(0, 1.0, 0, 1.0, UNKNOWN)] * 3)
    rule = settle(ExportOptions(budget=3, removed=True), 0.5, in_batches(lines, 2))
    assert not rule.decide(lines).kept.any()
    assert rule.cut.right > 1
    assert isinstance(rule, Rule)


def test_a_precision_is_kept_down_to_the_low_end_of_the_noise_rate() -> None:
    summary = {"noise_rate": 0.2, "noise_rate_low": 0.1, "calibrated": "none"}
    factor = np.exp(caution_of(summary))
    assert factor > (0.2 / 0.8) / (0.1 / 0.9), "as the odds fall, and somewhat more"
    right = np.linspace(0.01, 0.99, 50).astype(np.float32)
    wrong = (1 - right) / (1 - right + right * factor)
    keys = key_of(right)
    cut = find_cut(ExportOptions(precision=0.8), lambda: iter([(np.arange(50), keys)]), caution_of(summary))
    goes = int((right.astype(np.float64) < cut.right).sum())
    assert 0 < goes < 50
    assert wrong[:goes].mean() >= 0.8 > wrong[: goes + 1].mean()
    assert caution_of(summary | {"calibrated": "verified"}) == caution_of({"noise_rate": 0.2}) == 0
