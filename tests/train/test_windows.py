"""The order in two levels: every row once, features read once and in blocks, all rows in one window where they fit."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayclean.schema import Array
from rayclean.train.windows import WindowReader, epoch_windows, window_rows_of

SIZES = st.integers(1, 200), st.integers(1, 40), st.integers(1, 120)


@given(*SIZES, st.integers(0, 9))
def test_every_row_is_in_one_window_and_no_window_is_much_larger_than_asked(
    num_rows: int, block_rows: int, window_rows: int, epoch: int
) -> None:
    windows = epoch_windows(3, epoch, num_rows, block_rows, window_rows)
    rows = [window_rows_of(blocks, num_rows, block_rows) for blocks in windows]
    assert sorted(np.concatenate(rows).tolist()) == list(range(num_rows))
    assert all((np.diff(each) > 0).all() for each in rows)
    assert min(map(len, rows)) >= 1
    assert max(map(len, rows)) <= window_rows + block_rows
    if num_rows <= window_rows:
        assert rows[0].tolist() == list(range(num_rows))


def test_windows_hold_other_blocks_in_another_epoch_and_the_same_in_the_same() -> None:
    one, again, other = (epoch_windows(3, epoch, 1000, 10, 200) for epoch in (1, 1, 2))
    assert [blocks.tolist() for blocks in one] == [blocks.tolist() for blocks in again]
    assert [blocks.tolist() for blocks in one] != [blocks.tolist() for blocks in other]
    assert len(one) == 5
    assert all(np.ptp(blocks) > 30 for blocks in one), "blocks of a window come from everywhere"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@given(*SIZES)
def test_a_window_has_its_rows_and_each_is_asked_for_once(
    dtype: torch.dtype, num_rows: int, block_rows: int, window_rows: int
) -> None:
    features = torch.arange(2 * num_rows, dtype=torch.float32).view(num_rows, 2).to(dtype)
    asked: list[int] = []

    def rows(at: Array) -> torch.Tensor:
        assert len(at) <= block_rows
        asked.extend(at.tolist())
        return features[torch.from_numpy(at)]

    reader = WindowReader(rows, num_rows, block_rows)
    for blocks in epoch_windows(0, 1, num_rows, block_rows, window_rows):
        for _ in range(2):
            window = reader.read(blocks)
            assert window.dtype == dtype
            assert torch.equal(window, features[torch.from_numpy(window_rows_of(blocks, num_rows, block_rows))])
    assert sorted(asked) == list(range(num_rows))


def test_a_window_is_gone_when_the_next_one_is_read() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def rows(at: Array) -> torch.Tensor:
        assert all(window() is None for window in held)
        return torch.zeros(len(at), 1)

    reader = WindowReader(rows, 20, 5)
    for blocks in ([0, 1], [2, 3]):
        window = reader.read(np.array(blocks))
        held.append(weakref.ref(window))
        del window
