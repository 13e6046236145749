"""The plan of the index: every row once, labels in order, no part larger than allowed."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.neighbors.parts import group_labels, plan_parts

class_counts = st.lists(st.integers(0, 40), max_size=12).map(lambda counts: np.array(counts, np.int64))


@settings(deadline=None)
@given(class_counts, st.integers(1, 50))
def test_parts_cover_the_order_by_label_once(counts: np.ndarray, max_rows: int) -> None:
    parts = plan_parts(counts, max_rows)
    edges = [0] + [part.stop for part in parts]
    assert [part.start for part in parts] == edges[:-1]
    assert edges[-1] == counts.sum()
    assert all(0 < part.stop - part.start <= max_rows for part in parts)
    label_of = np.repeat(np.arange(len(counts)), counts)
    for part in parts:
        assert (part.spans[0][1], part.spans[-1][2]) == (part.start, part.stop)
        assert all(before[2] == after[1] for before, after in itertools.pairwise(part.spans))
        for label, start, stop in part.spans:
            assert stop > start
            assert set(label_of[start:stop]) == {label}


@settings(deadline=None)
@given(class_counts, st.integers(1, 50))
def test_a_label_is_cut_only_where_it_must_be(counts: np.ndarray, max_rows: int) -> None:
    parts = plan_parts(counts, max_rows)
    for label, count in enumerate(counts):
        holding = [part for part in parts if any(span[0] == label for span in part.spans)]
        assert len(holding) == -(-count // max_rows)
        if len(holding) > 1:
            sizes = [part.stop - part.start for part in holding]
            assert all(len(part.spans) == 1 for part in holding)
            assert max(sizes) - min(sizes) <= 1
    for before, after in itertools.pairwise(parts):
        whole = [len(part.spans) > 1 or counts[part.spans[0][0]] <= max_rows for part in (before, after)]
        first = after.spans[0]
        if all(whole):  # two parts of whole labels follow each other only where the next label did not fit
            assert before.stop - before.start + first[2] - first[1] > max_rows


@settings(deadline=None)
@given(class_counts, st.integers(1, 50))
def test_groups_hold_every_label_once_and_stop_when_full(counts: np.ndarray, max_rows: int) -> None:
    groups = group_labels(counts, max_rows)
    assert [label for group in groups for label in group] == np.flatnonzero(counts).tolist()
    for group, following in itertools.pairwise(groups):
        rows = counts[list(group)].sum()
        assert rows + counts[following[0]] > max_rows
    assert all(len(group) == 1 or counts[list(group)].sum() <= max_rows for group in groups)
