"""Which beliefs to trust: networks that have memorised their labels say nothing about them [our choice].

Near rows tell, by the features of the first snapshot, before anything could be memorised. Of a source s with belief
U_s,

    A_s = share of rows whose U_s is surest of the given label
    D_s = share of near rows whose label is the class that U_s is surest of, less A_s

D_s > 0 says that at least so many given labels are wrong, in the eyes of rows that have not seen them: what another
source disagrees with must be as much. So the last snapshot with 1 - A_s >= max D is trusted, and of the other networks
all that disagree as much. Nothing is to be set; docs/results/merge.md has what it chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.merge.joint import adjusted
from rayclean.scores.sources import BELIEF_FLOOR, Sources


class Agreement(NamedTuple):
    """How a source and the labels agree.

    Attributes:
        own: A, 0 to 1.
        excess: D, -1 to 1; NaN where no row has a near one.
    """

    own: float
    excess: float


class Trust(NamedTuple):
    """What is trusted, and why.

    Attributes:
        epochs: of snapshots of role `main`.
        roles: of the other networks, by their last snapshots.
    """

    sources: Sources
    epochs: dict[int, Agreement]
    roles: dict[str, Agreement]


def agreement(beliefs: Array, given: Array, near_labels: Array) -> Agreement:
    """A and D of a source.

    Args:
        beliefs: (M, K).
        given: (M,) labels.
        near_labels: (M, J) given labels of near rows, -1 where there are fewer.
    """
    log_mean = np.log(beliefs.mean(axis=0, dtype=np.float64) + BELIEF_FLOOR)
    surest = adjusted(beliefs, log_mean).argmax(axis=1)
    own, there = float((surest == given).mean()), near_labels >= 0
    near = float((near_labels == surest[:, None])[there].mean()) if there.any() else float("nan")
    return Agreement(own, near - own)


def trusted(epochs: Mapping[int, Agreement], roles: Mapping[str, Agreement]) -> Trust:
    """The sources to take.

    Args:
        epochs: of role `main`'s snapshots, at least one.
        roles: of the other networks.
    """
    at_least = np.nanmax([0.0, *(each.excess for each in epochs.values())])
    # One is there: a source disagrees with as much as its own D.
    epoch = max(epoch for epoch, each in epochs.items() if 1 - each.own >= at_least)
    others = tuple(name for name, each in roles.items() if 1 - each.own >= at_least)
    return Trust(Sources(epoch, others), dict(epochs), dict(roles))
