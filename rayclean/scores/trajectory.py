"""Scores from the course of training: loss, ens_loss, margin, aum, wrong_events.

The loss and margin columns of the IOFM paper (AAAI 2024, tables 1 and 2); AUM is Pleiss et al., NeurIPS 2020.
Higher is cleaner in all of them. Here losses and margins come from an evaluation pass at the end of every
epoch, without augmentation; AUM's own come from the training batches. `wrong_events` is our choice.

Letters: E epochs, N rows, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating]


class RunningTrajectory:
    """The trajectory scores as of each epoch, in memory of five numbers per row.

    A row with a NaN in some epoch is NaN from then on in the means, and in that epoch for the rest.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_epochs = 0
        self._loss = np.full(num_rows, np.nan)
        self._margin = np.full(num_rows, np.nan)
        self._loss_sum = np.zeros(num_rows)
        self._margin_sum = np.zeros(num_rows)
        self._num_wrong = np.zeros(num_rows, dtype=np.int64)

    def add(self, loss: Floats, margin: Floats, wrong: NDArray[np.bool_]) -> None:
        """Take in the next epoch: (N,) loss, (N,) margin, (N,) argmax != given label.

        Raises:
            ValueError: a shape is not (N,).
        """
        shapes = {loss.shape, margin.shape, wrong.shape}
        if shapes != {self._loss.shape}:
            raise ValueError(f"epoch {self.num_epochs + 1}: shape {self._loss.shape} expected, found {shapes}")
        self.num_epochs += 1
        self._loss = loss.astype(np.float64)
        self._margin = margin.astype(np.float64)
        self._loss_sum += self._loss
        self._margin_sum += self._margin
        self._num_wrong += wrong

    def scores(self) -> dict[str, Float64]:
        """Return the (N,) float64 scores as of the last epoch added, higher = cleaner.

        `loss` = -l(E), at most 0; `ens_loss` = -mean of l(e), at most 0; `margin` = m(E) and `aum` = mean of
        m(e), unbounded; `wrong_events` = -(number of epochs whose prediction is not the given label), -E..0.

        Raises:
            ValueError: no epoch was added.
        """
        if not self.num_epochs:
            raise ValueError("trajectory scores need at least one epoch, found none")
        # 0 - x, where -x would turn a loss of 0 into -0.0.
        return {
            "loss": 0.0 - self._loss,
            "ens_loss": 0.0 - self._loss_sum / self.num_epochs,
            "margin": self._margin.copy(),
            "aum": self._margin_sum / self.num_epochs,
            "wrong_events": (-self._num_wrong).astype(np.float64),
        }


def trajectory_scores(loss: Floats, margin: Floats, wrong: NDArray[np.bool_]) -> dict[str, Float64]:
    """Return the trajectory scores as of the last of E epochs; see `RunningTrajectory.scores`.

    Args:
        loss: (E, N) loss of each row after each epoch.
        margin: (E, N) its margin.
        wrong: (E, N) whether the prediction is not the given label.

    Raises:
        ValueError: the shapes differ, or there is no epoch.
    """
    if loss.ndim != 2 or not loss.shape == margin.shape == wrong.shape:
        raise ValueError(f"three (E, N) arrays expected, found {loss.shape}, {margin.shape}, {wrong.shape}")
    running = RunningTrajectory(loss.shape[1])
    for epoch in zip(loss, margin, wrong, strict=True):
        running.add(*epoch)
    return running.scores()
