"""Whose beliefs over the classes are believed, and how those of several networks become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rayclean.schema import Array

BELIEF_FLOOR = 1e-9
NearRows = Literal["without", "with", "alone"]


@dataclass(frozen=True)
class Sources:
    """Whose beliefs are taken.

    Attributes:
        epoch: of the snapshot of role `main`; None: the last one.
        roles: further networks, each by its last snapshot.
        near: whether the labels of near rows are believed beside them, or alone.
    """

    epoch: int | None = None
    roles: tuple[str, ...] = ()
    near: NearRows = "without"


LAST = Sources()


def combined(beliefs: Sequence[Array]) -> Array:
    """The geometric mean of several networks' beliefs, (N, K) float64, rows sum to 1; of one network as it is.

    Networks that were trained apart err apart, and a class that one of them rules out is out. The arithmetic mean
    gives up to .005 AUROC less (docs/results/merge.md).

    Args:
        beliefs: (N, K) each, not negative.
    """
    if len(beliefs) == 1:
        return np.asarray(beliefs[0], np.float64)
    log_mean = np.mean([np.log(np.asarray(each, np.float64) + BELIEF_FLOOR) for each in beliefs], axis=0)
    result: Array = np.exp(log_mean - log_mean.max(axis=1, keepdims=True))
    result /= result.sum(axis=1, keepdims=True)
    return result
