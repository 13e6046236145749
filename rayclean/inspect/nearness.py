"""How far a sample's neighbours lie from it, in the features that say what is near."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayclean.errors import RaycleanError
from rayclean.run.run import Run


def distances(this: Run, row: int, near: Sequence[int]) -> list[float] | None:
    """Euclidean distances of rows from a row, by the features at the last snapshot of role `main`.

    They are those of the search: of the features as they are stored, in the space that its lists were made of.

    Args:
        this: the run, of whose catalog the rows are.
        row: the sample.
        near: its neighbours.

    Returns:
        One each, in their order; None where the features are not there (any more).
    """
    try:
        space = this.main.near(this.main.last).embedding
        points = space.features(np.array([row, *near], np.int64)).astype(np.float64)
    except (OSError, RaycleanError):
        return None
    found: list[float] = np.sqrt(np.square(points[1:] - points[0]).sum(axis=1)).tolist()
    return found
