"""What is offered first, and by which keys classes are chosen."""

from __future__ import annotations

import string

import numpy as np
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.decisions.entries import Choice, Entry
from rayclean.errors import InputError
from rayclean.review.palette import COMMANDS, DIGITS, LETTERS, fixed_keys, likely_keys
from rayclean.review.queue import most_doubtful
from tests.review.tables import queue, table

SCORES = st.lists(st.floats(0, 1, width=32), max_size=30)


@given(SCORES, st.integers(0, 20), st.floats(0, 1, width=32), st.sets(st.integers(0, 40)))
def test_flagged_rows_come_first_and_then_what_is_nearest_to_a_half(
    scores: list[float], held: int, threshold: float, skip: set[int]
) -> None:
    tables = ds.dataset([ds.dataset(table(scores[:7], threshold)), ds.dataset(table(scores[7:], threshold, first=7))])
    found = most_doubtful(tables, held, skip)
    offered = [row for row in range(len(scores)) if row not in skip]
    order = sorted(offered, key=lambda row: _doubt(scores[row], threshold, row))
    assert found.rows.tolist() == order[:held]
    assert found.num_flagged == sum(np.float32(scores[row]) < threshold for row in offered)


def _doubt(score: float, threshold: float, row: int) -> tuple[bool, float, int]:
    flagged = score < threshold
    return not flagged, score if flagged else abs(score - 0.5), row


def test_rows_that_a_file_has_verified_are_not_offered() -> None:
    tables = ds.dataset(table([0.1, 0.2, 0.9], verified=[2, None, -1]))
    assert most_doubtful(tables, 9, skip_verified=True).rows.tolist() == [1]
    assert most_doubtful(tables, 9).rows.tolist() == [0, 1, 2]


def decision(row: int, key: str, shard: str) -> Entry:
    return Entry(row=row, shard=shard, key=key, given="ant", decision=Choice.KEEP, label=None, time="now")


def test_decided_samples_are_found_where_they_are_now() -> None:
    found = queue([0.1, 0.2, 0.3, 0.9])
    here, moved = decision(2, "k2", "a.tar"), decision(0, "k1", "b.tar")
    gone, other_shard = decision(1, "gone", "a.tar"), decision(3, "k3", "a.tar")
    found.place([here, moved, gone, other_shard])
    assert found.row_of == {("a.tar", "k2"): 2, ("b.tar", "k1"): 1}
    found.fill([here.sample, moved.sample, gone.sample])
    assert found.rows == [0, 3]
    assert found.num_flagged == 3
    assert found.flagged >= {1, 2}


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="no row 7"):
        queue([0.1]).line(7)


@given(st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=40))
def test_each_key_is_one_class_and_no_command(names: list[str]) -> None:
    keys = fixed_keys(names)
    if keys is None:
        assert len(names) > len(DIGITS)
        return
    assert sorted(keys) == list(range(len(names)))
    assert len(set(keys.values())) == len(names)
    assert not set(keys.values()) & {*COMMANDS, "?"}
    assert all(keys[i] == name for i, name in enumerate(names) if name in [*string.digits, *LETTERS])


def test_digits_have_their_own_keys() -> None:
    assert fixed_keys([str(i) for i in range(10)]) == {i: str(i) for i in range(10)}


def test_of_many_classes_the_likely_ones_have_keys() -> None:
    assert fixed_keys([f"class {i}" for i in range(100)]) is None
    assert likely_keys([7, None, 3, 7, *range(20)]) == {7: "1", 3: "2", **{i: str(i + 3) for i in range(3)}} | {
        4: "6",
        5: "7",
        6: "8",
        8: "9",
    }
