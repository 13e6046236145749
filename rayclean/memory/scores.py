"""The vote of near rows in memory, by the same arithmetic as the stage of a run."""

from __future__ import annotations

import numpy as np

from rayclean.schema import NO_LABEL, Array
from rayclean.scores.vote import neighbor_vote

EVIDENCE = 3


def vote_of(lists: Array, labels: Array) -> Array:
    """(N,) the vote of lists of any label, (N, L) with -1 where they are shorter."""
    there = lists >= 0
    return neighbor_vote(np.where(there, labels[np.maximum(lists, 0)], NO_LABEL), there, labels)
