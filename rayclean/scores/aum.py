"""AUM with threshold samples: a cut that needs no truth (Pleiss et al., NeurIPS 2020).

Some rows get a class of their own that means nothing: their area under the margin (AUM) is that of wrong labels. A row
whose AUM is below their 99th percentile is flagged. Two networks, with different threshold samples, see every row with
its own label at least once.

Letters: R networks, N rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating]

PERCENTILE = 99.0  # at most 1% of the threshold samples are above it


def aum_threshold(aum: Floats) -> float:
    """The AUM below which a row is flagged: the 99th percentile of the threshold samples' (N,); NaN without any."""
    return float(np.percentile(aum, PERCENTILE)) if len(aum) else float("nan")


def aum_excess(aum: Floats, thresholds: Floats, is_threshold: NDArray[np.bool_]) -> Float64:
    """How far each row's AUM is above the threshold, at best over the networks that trained on its own label.

    Below 0: flagged by every one of them, which is when the authors' code drops a row.

    Args:
        aum: (R, N) mean margins; those of threshold samples are not looked at.
        thresholds: (R,) of each network.
        is_threshold: (R, N) which rows were threshold samples of a network.

    Returns:
        (N,) float64, higher = cleaner; NaN for a row that was a threshold sample of all.
    """
    above = np.where(is_threshold, -np.inf, aum.astype(np.float64) - thresholds[:, None])
    best = above.max(axis=0)
    return np.where(is_threshold.all(axis=0), np.nan, best)
