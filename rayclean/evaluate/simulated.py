"""ODD's two distributions as histograms: losses of random labels, simulated, and those that the rows have.

Letters: N rows, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayclean.schema import UNKNOWN

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

# Of ln(loss), the same for all runs, so that their pictures compare: a loss of 6e-6 (label probability 1 - 6e-6) to
# one of 148, in steps of 22%.
EDGES = np.linspace(-12.0, 5.0, 86)

SIMULATED, RIGHT, WRONG, NO_TRUTH, PLANTED = "simulated", "right", "wrong", "no truth", "planted"


@dataclass(frozen=True)
class SimulatedLosses:
    """A network's losses beside those simulated from its last layer.

    Attributes:
        role: the network's.
        epoch: ODD's E, whose snapshot is simulated; the losses are means over the epochs up to it.
        threshold: loss above which ODD drops a row.
        edges: (B+1,) of the bins, in ln(loss).
        counts: (B,) losses in each bin, of `simulated` random labels and of rows: with `right` and `wrong` labels and
            with `no truth`, or with `planted` uniform labels.
    """

    role: str
    epoch: int
    threshold: float
    edges: list[float]
    counts: dict[str, list[int]]


def count(losses: Floats) -> list[int]:
    """Return how many losses lie in each bin of EDGES, (B,); they add up to the losses.

    The outermost bins have what is beyond them too, as a loss of 0; a NaN counts nowhere.

    Args:
        losses: (N,) not negative.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(losses[~np.isnan(losses)].astype(np.float64))
    counts: list[int] = np.histogram(np.clip(logs, EDGES[0], EDGES[-1]), EDGES)[0].tolist()
    return counts


def split_by_truth(losses: Floats, given: Ints, truth: Ints) -> dict[str, Floats]:
    """Return the losses of rows with right, with wrong labels and with no truth; the last only where there are any.

    Args:
        losses: (N,).
        given: (N,) labels.
        truth: (N,) true labels, `UNKNOWN` where unknown.
    """
    known = truth != UNKNOWN
    parts = {RIGHT: known & (given == truth), WRONG: known & (given != truth), NO_TRUTH: ~known}
    return {name: losses[rows] for name, rows in parts.items() if name != NO_TRUTH or rows.any()}


def histograms(
    role: str, epoch: int, simulated: Floats, threshold: float, losses: Mapping[str, Floats]
) -> SimulatedLosses:
    """Return the histograms of simulated losses and of others by name."""
    counts = {name: count(values) for name, values in {SIMULATED: simulated, **losses}.items()}
    return SimulatedLosses(role, epoch, threshold, EDGES.tolist(), counts)
