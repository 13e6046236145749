"""Which rows further paths may still decide [our choice]."""

from __future__ import annotations

import numpy as np
from scipy.special import logit

from rayclean.merge.joint import JointModel
from rayclean.schema import Array

SURE = 0.95  # of the label being right, or wrong, from which on further paths would hardly change what is decided


def undecided(model: JointModel, beliefs: Array, given: Array) -> Array:
    """Rows that further paths may still decide, (N,) bool.

    Args:
        model: fitted to the beliefs of the rounds up to here.
        beliefs: (N, K).
        given: (N,) labels.
    """
    open_rows: Array = np.abs(model.log_odds(beliefs, given)) < logit(SURE)
    return open_rows
