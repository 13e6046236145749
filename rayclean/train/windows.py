"""Rows in an order that is shuffled in two levels, so that features are read in blocks and once per epoch.

Blocks of consecutive rows are drawn in a shuffled order into windows that fit into memory; the rows of a window are
shuffled among themselves. Where all rows fit one window this is a plain shuffle of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array
from rayclean.train.plan import epoch_seed

WINDOW_ROWS = 2**17
Rows: TypeAlias = "Callable[[Array], torch.Tensor]"  # (R,) int64 rows in any order -> their (R, d) features


def epoch_windows(seed: int, epoch: int, num_rows: int, block_rows: int, window_rows: int) -> list[Array]:
    """Cuts an epoch into windows of about equally many blocks.

    Args:
        seed: the run's seed.
        epoch: whose order it is.
        num_rows: N.
        block_rows: consecutive rows of a block; the last one may have fewer.
        window_rows: of a window, at most, but for what its last block is over; it has one block at least.

    Returns:
        For each window the numbers of its blocks, ascending; every block is in one window.
    """
    blocks = -(-num_rows // block_rows)
    order = np.random.default_rng(epoch_seed(seed, epoch, 0, "heads.blocks")).permutation(blocks)
    return [np.sort(part) for part in np.array_split(order, min(blocks, -(-num_rows // window_rows)))]


def window_rows_of(blocks: Array, num_rows: int, block_rows: int) -> Array:
    """(R,) int64 rows of a window's blocks, ascending."""
    rows = (np.asarray(blocks, np.int64)[:, None] * block_rows + np.arange(block_rows)).ravel()
    return rows[rows < num_rows]


class WindowReader:
    """The features of one window at a time, read block by block.

    A window is kept until another one is asked for: one that holds all rows is read once in the whole training.
    """

    def __init__(self, rows: Rows, num_rows: int, block_rows: int) -> None:
        self._rows, self._num_rows, self._block_rows = rows, num_rows, block_rows
        self._held: tuple[Array, torch.Tensor] | None = None

    def read(self, blocks: Array) -> torch.Tensor:
        """(R, d) features of `window_rows_of` these blocks, as `rows` gives them."""
        if self._held is None or not np.array_equal(self._held[0], blocks):
            self._held = None  # two windows at once might not fit
            self._held = blocks, self._fill(blocks)
        return self._held[1]

    def _fill(self, blocks: Array) -> torch.Tensor:
        total = len(window_rows_of(blocks, self._num_rows, self._block_rows))
        window, start = torch.empty(0), 0
        for block in blocks:
            found = self._rows(window_rows_of(np.array([block]), self._num_rows, self._block_rows))
            if not start:
                window = found.new_empty((total, found.shape[1]))
            window[start : start + len(found)] = found
            start += len(found)
        return window
