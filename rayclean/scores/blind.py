"""Beliefs that have not seen the labels of their rows, together.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy

from rayclean.schema import Array
from rayclean.scores.sources import BELIEF_FLOOR, Sources

NEIGHBORS = "neighbors"  # what the shares of near rows' labels are called among the sources
SHARE_NEIGHBORS = 50  # whose labels are a belief


def adjusted(belief: Array, log_mean: Array) -> Array:
    """(N, K) float64 log beliefs less those of the mean row."""
    found: Array = np.log(np.asarray(belief, np.float64) + BELIEF_FLOOR) - log_mean
    return found


def mixed(beliefs: Mapping[str, Array], sources: Sources) -> Array:
    """(N, K) what blind sources say together: the geometric mean of beliefs, each relative to its usual row.

    Args:
        beliefs: name -> (N, K) of any rows.
        sources: which, with the logarithms of their mean rows.
    """
    logs = [adjusted(beliefs[name], np.array(log_mean)) for name, log_mean in sources.blind]
    result: Array = scipy.special.softmax(np.mean(logs, axis=0), axis=1)
    return result
