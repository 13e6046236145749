"""Which of several beliefs to take together: by how well they explain the labels, which none has seen [our choice].

Heads that resist noise are better where there is much, and worse where there is little; so are votes of many
neighbours. The geometric mean of some of them is taken, each divided by its own mean: of those under which the joint
model gives the labels the highest likelihood. docs/results/honest.md has what each gives.

How soft a belief is depends on how it was made. Its temperature, at which it tells the labels best, undoes that: a
mixture's sharpness is as many times that of the reference mixture as its temperature is.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy

from rayclean.merge.blind import explained
from rayclean.merge.joint import Float64, Ints
from rayclean.merge.transition import adjusted
from rayclean.schema import Array
from rayclean.scores.sources import BELIEF_FLOOR

MAX_NUMBERS = 2**19  # beliefs that one mixture is judged by
LEVEL = 0.005  # nats per label: of mixtures that are as good but for this the one of most sources is taken
TEMPERATURES = (-3.0, 3.0)  # logarithms


class Mixture(NamedTuple):
    """What was taken.

    Attributes:
        names: of the sources, in their order.
        belief: (N, K) their geometric mean, rows sum to 1.
        base: of `sharpness_of`.
        likelihoods: of every mixture that was compared: mean log likelihood of a label.
    """

    names: tuple[str, ...]
    belief: Float64
    base: float
    likelihoods: dict[tuple[str, ...], float]

    def again(self, sources: Mapping[str, Array]) -> Float64:
        """The same mixture of beliefs of more rows."""
        return mixture_of([sources[name] for name in self.names])


def best_mixture(
    sources: Mapping[str, Array], given: Ints, base: float, reference: Sequence[str] | None = None
) -> Mixture:
    """The largest mixture of the sources that explains the labels as well as any; of equally large ones the best.

    Args:
        sources: (N, K) beliefs that have not seen the labels, by name.
        given: (N,) labels.
        base: sharpness of the mixture of the reference.
        reference: names of sources; by default all.
    """
    num_classes = next(iter(sources.values())).shape[1]
    some = slice(None, None, max(1, -(-len(given) * num_classes // MAX_NUMBERS)))
    few, labels = {name: belief[some] for name, belief in sources.items()}, given[some]
    usual = temperature(mixture_of([few[name] for name in reference or sources]), labels)
    bases, likelihoods = {}, {}
    # All 2^S - 1 mixtures are compared, which is cheap since sources are few: three decays and near rows by default.
    for size in range(1, len(sources) + 1):
        for names in combinations(sources, size):
            belief = mixture_of([few[name] for name in names])
            bases[names] = base * temperature(belief, labels) / usual
            likelihoods[names] = explained(belief, labels, bases[names])
    level = max(likelihoods.values()) - LEVEL
    best = max(
        (names for names in likelihoods if likelihoods[names] >= level),
        key=lambda names: (len(names), likelihoods[names]),
    )
    return Mixture(best, mixture_of([sources[name] for name in best]), bases[best], likelihoods)


def mixture_of(beliefs: Sequence[Array]) -> Float64:
    """(N, K) the geometric mean of beliefs (N, K), each relative to its mean row; rows sum to 1."""
    logs = [adjusted(each, np.log(np.mean(each, axis=0, dtype=np.float64) + BELIEF_FLOOR)) for each in beliefs]
    result: Float64 = scipy.special.softmax(np.mean(logs, axis=0), axis=1)
    return result


def temperature(beliefs: Float64, given: Ints) -> float:
    """The power of beliefs (N, K) under which they give the labels (N,) the highest likelihood."""
    logs = np.log(beliefs + BELIEF_FLOOR)
    at_label = logs[np.arange(len(given)), given].mean()

    # Convex in the power, so a bounded search finds the one minimum.
    def cost(log_power: float) -> float:
        power = np.exp(log_power)
        return float(scipy.special.logsumexp(power * logs, axis=1).mean() - power * at_label)

    return float(
        np.exp(scipy.optimize.minimize_scalar(cost, bounds=TEMPERATURES, method="bounded", options={"xatol": 0.01}).x)
    )
