"""Kinds of issues: each by the evidence that its name says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayclean.config import Config
from rayclean.merge.kinds import Kind, conflicting_rows, issue_kinds
from rayclean.run.run import Run
from rayclean.storage.contents import read_table

SEEN = np.array(
    [
        [0.9, 0.05, 0.05, 0.0, 0.0],  # surely another class
        [0.5, 0.45, 0.05, 0.0, 0.0],  # one of two, the label is the second
        [0.5, 0.0, 0.45, 0.05, 0.0],  # one of two, the label is neither
        [0.3, 0.2, 0.2, 0.15, 0.15],  # none
    ]
)
LABELS = np.ones(4, np.int64)
YES, NO = np.ones(4, bool), np.zeros(4, bool)


def test_each_kind_is_told_by_what_is_seen_without_the_label() -> None:
    expected = [Kind.WRONG_LABEL, Kind.AMBIGUOUS, Kind.WRONG_LABEL, Kind.NO_CLASS]
    assert issue_kinds(SEEN, LABELS, YES, NO).tolist() == expected
    assert issue_kinds(SEEN, LABELS, NO, NO).tolist() == [Kind.NO_ISSUE] * 4
    assert (
        issue_kinds(SEEN, LABELS, NO, YES).tolist()
        == issue_kinds(SEEN, LABELS, YES, YES).tolist()
        == [Kind.DUPLICATE] * 4
    )


def test_one_class_has_no_second() -> None:
    assert issue_kinds(np.ones((1, 1)), np.array([0]), np.array([True]), np.array([False])).tolist() == [0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=12))
def test_all_rows_of_a_mixed_group_conflict(rows: list[tuple[int, int]]) -> None:
    pixels, labels = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    first = {pixel: int(np.flatnonzero(pixels == pixel)[0]) for pixel in pixels.tolist()}
    duplicate_of = np.array([first[p] if first[p] != i else -1 for i, p in enumerate(pixels.tolist())], np.int64)
    expected = [i for i, p in enumerate(pixels.tolist()) if len(set(labels[pixels == p].tolist())) > 1]
    assert conflicting_rows(duplicate_of, labels).tolist() == expected


def test_a_run_names_copies_with_other_labels(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[loss]", "merge.threshold=1.0"))
    tables = [read_table(run.store, f"labels/{name}") for name in run.store.list("labels") if name.startswith("part-")]
    rows = [row for table in tables for row in table.to_pylist()]
    copies = {row["key"] for row in rows if row["issue_kind"] == "duplicate_with_another_label"}
    assert {"other", "same0", "same1"} <= copies
    assert not {key for key in copies if key.startswith("copy")}
    assert all(row["issue_kind"] is not None for row in rows)
