"""Which beliefs to trust: networks that have memorised their labels say nothing about them [our choice].

Near rows tell, by the features of the first snapshot, before anything could be memorised. Of a source s with belief
U_s,

    A_s = share of rows whose U_s is surest of the given label
    D_s = share of near rows whose label is the class that U_s is surest of, less that whose label is the row's own

So many rows at least have another label than their surroundings and s agree on: the near rows' labels are drawn apart
from the row's own, so they gain by U_s only where it disagrees with the row's label and is right. A source that
disagrees with fewer rows, 1 - A_s < D of another, must have learned some of these labels by heart. So the last
snapshot with 1 - A_s >= max D is trusted, and of the other networks all that disagree as much. Nothing is to be set;
docs/results/merge.md has what it chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.merge.transition import adjusted
from rayclean.scores.sources import BELIEF_FLOOR, Sources


class Agreement(NamedTuple):
    """How a source and the labels agree.

    Attributes:
        own: A, 0 to 1.
        excess: D, -1 to 1; NaN where no row has a near one.
        floor: share of wrong labels that this shows at the least, 0 to 1.
    """

    own: float
    excess: float
    floor: float = 0.0


class Trust(NamedTuple):
    """What is trusted, and why.

    Attributes:
        noise_floor: that of the trusted epoch.
        epochs: of snapshots of role `main`.
        roles: of the other networks, by their last snapshots.
    """

    sources: Sources
    noise_floor: float
    epochs: dict[int, Agreement]
    roles: dict[str, Agreement]


def agreement(beliefs: Array, given: Array, near_labels: Array) -> Agreement:
    """A and D of a source, and what D says of the noise.

    Of near rows of the same class a share 1 - noise agrees with a right belief, and about its square with the row's own
    label, so D is about noise times the first share; less where the belief is wrong too, so it is a floor. Two
    standard errors are taken off.

    Args:
        beliefs: (M, K).
        given: (M,) labels.
        near_labels: (M, J) given labels of near rows, -1 where there are fewer.
    """
    log_mean = np.log(beliefs.mean(axis=0, dtype=np.float64) + BELIEF_FLOOR)
    surest = adjusted(beliefs, log_mean).argmax(axis=1)
    there = near_labels >= 0
    own = float((surest == given).mean())
    if not there.any():
        return Agreement(own, float("nan"))
    by_belief = near_labels == surest[:, None]
    gain = (by_belief.astype(np.int64) - (near_labels == given[:, None]))[there]
    error = gain.std() / np.sqrt(there.any(axis=1).sum())
    floor = (gain.mean() - 2 * error) / max(by_belief[there].mean(), error)
    return Agreement(own, float(gain.mean()), float(max(floor, 0.0)))


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
    return Trust(Sources(epoch, others), epochs[epoch].floor, dict(epochs), dict(roles))
