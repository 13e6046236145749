"""Which beliefs to trust: networks that have memorised their labels say nothing about them [our choice].

Near rows tell, by the features of the first snapshot, before anything could be memorised. Of a source s with belief
U_s,

    A_s = share of rows whose U_s is surest of the given label
    N_s = share of near rows whose label is the class that U_s is surest of
    L   = share of near rows whose label is the row's own

The near rows' labels were drawn apart from the row's own. Of those of the same class a share 1 - noise agrees with a
right belief, and about the square of that with the row's own label: 1 - L / N_s is about the share of wrong labels,
less where the belief is wrong too. So it is a floor of the noise. A source that disagrees with fewer rows than that has
learned wrong labels by heart: the last snapshot with 1 - A_s no less than the highest floor is trusted, and of the
other networks all for which that holds. Nothing is to be set; docs/results/merge.md has what it chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rayclean.merge.transition import adjusted
from rayclean.schema import Array
from rayclean.scores.sources import BELIEF_FLOOR, Sources


class Agreement(NamedTuple):
    """How a source and the labels agree.

    Attributes:
        own: A, 0 to 1.
        near: N, 0 to 1; NaN where no row has a near one.
        floor: 1 - L / N, one standard error lower, 0 to 1; 0 where no row has a near one.
    """

    own: float
    near: float
    floor: float


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
    """A, N and the floor of a source.

    Args:
        beliefs: (M, K).
        given: (M,) labels.
        near_labels: (M, J) given labels of near rows, `NO_LABEL` where there are fewer.
    """
    log_mean = np.log(beliefs.mean(axis=0, dtype=np.float64) + BELIEF_FLOOR)
    surest = adjusted(beliefs, log_mean).argmax(axis=1)
    there = near_labels >= 0
    own = float((surest == given).mean())
    if not there.any():
        return Agreement(own, float("nan"), 0.0)
    by_belief = near_labels == surest[:, None]
    # N - L as the mean of differences pair by pair, which scatters less than the difference of two means.
    gain = (by_belief.astype(np.int64) - (near_labels == given[:, None]))[there]
    # By rows and not by pairs: the labels near one row are correlated.
    error = gain.std() / np.sqrt(there.any(axis=1).sum())
    near = float(by_belief[there].mean())
    floor = (gain.mean() - error) / near if near else 0.0
    return Agreement(own, near, float(max(floor, 0.0)))


def trusted(epochs: Mapping[int, Agreement], roles: Mapping[str, Agreement]) -> Trust:
    """The sources to take.

    Args:
        epochs: of role `main`'s snapshots, at least one.
        roles: of the other networks.
    """
    at_least = max(each.floor for each in epochs.values())
    # Where even the least sure one agrees with too many, it is still the one to take.
    least_sure = min(epochs, key=lambda epoch: (epochs[epoch].own, epoch))
    epoch = max([least_sure, *(epoch for epoch, each in epochs.items() if 1 - each.own >= at_least)])
    others = tuple(name for name, each in roles.items() if 1 - each.own >= at_least)
    return Trust(Sources(epoch, others), epochs[epoch].floor, dict(epochs), dict(roles))
