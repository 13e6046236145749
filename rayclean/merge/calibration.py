"""Calibration by a few labels that people have verified [our choice]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Standard deviations of what is believed before any label is verified: of log(scale), and of the shift.
SCALE_DEVIATION = 0.5
SHIFT_DEVIATION = 2.0
LARGEST = 1e3  # log-odds that a fit takes in: those of a class that is alone are infinite


@dataclass(frozen=True)
class Calibration:
    """log-odds -> scale * log-odds + shift: it keeps the order, and changes what the probabilities say.

    Attributes:
        num_verified: rows that it was fitted to.
    """

    scale: float = 1.0
    shift: float = 0.0
    num_verified: int = 0

    def __call__(self, log_odds: Float64) -> Float64:
        """(N,) calibrated log-odds."""
        return self.scale * log_odds + self.shift


NO_CALIBRATION = Calibration()


def fit_calibration(log_odds: Float64, clean: NDArray[np.bool_]) -> Calibration:
    """Platt's logistic regression with a Gaussian prior on both numbers, so that two verified rows do no harm.

    Which rows were verified may depend on their log-odds (the most suspicious first), but not on more than these.

    Args:
        log_odds: (V,) of the given labels being right.
        clean: (V,) whether they are.
    """
    if not len(clean):
        return NO_CALIBRATION
    sign, bounded = np.where(clean, 1.0, -1.0), np.clip(log_odds, -LARGEST, LARGEST)

    def cost(parameters: Float64) -> float:
        log_scale, shift = parameters
        # log(1 + exp(x)) by logaddexp: the exponential of log-odds in the hundreds overflows.
        loss = np.logaddexp(0.0, -sign * (np.exp(log_scale) * bounded + shift)).sum()
        return float(loss + (log_scale / SCALE_DEVIATION) ** 2 / 2 + (shift / SHIFT_DEVIATION) ** 2 / 2)

    # Bounds far beyond what the prior lets through (6 and 10 deviations): they only keep the line search finite.
    log_scale, shift = scipy.optimize.minimize(cost, np.zeros(2), method="L-BFGS-B", bounds=[(-3, 3), (-20, 20)]).x
    return Calibration(float(np.exp(log_scale)), float(shift), len(clean))
