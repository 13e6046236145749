"""The joint model of several beliefs that have not seen the labels of their rows: which of them, and together how.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rayclean.merge.blind import fit_blind
from rayclean.merge.doubts import chance_doubt, moved_doubt
from rayclean.merge.evidence import best_mixture
from rayclean.merge.models import Fitted
from rayclean.schema import JOINT, NO_LABEL, Array
from rayclean.scores.blind import NEIGHBORS
from rayclean.scores.sources import BELIEF_FLOOR, Sources

HEADS = 2.7  # sharpness of linear heads by MixUp and votes of neighbours together


class Reference(NamedTuple):
    """What a mixture's sharpness is told by.

    Attributes:
        names: of sources, whose mixture has the usual sharpness.
        base: that sharpness.
    """

    names: tuple[str, ...]
    base: float


def fit_out_of_fold(
    sources: Mapping[str, Array], labels: Array, reference: Reference, none: bool, verified: Array
) -> Fitted:
    """Chooses among beliefs and fits the joint model to them.

    Sources that agree with the labels no more than by chance are left out; where that are all, the result is not
    reliable and says why.

    Args:
        sources: name -> (N, K), of a random part of the rows.
        labels: (N,) of these rows.
        reference: what the sharpness is told by.
        none: whether rows may be of none of the classes.
        verified: (N,) labels that people have verified, `NO_LABEL` elsewhere, `DROPPED` where no class fits.
    """
    found = {name: chance_doubt(belief, labels) for name, belief in sources.items()}
    kept = {name: belief for name, belief in sources.items() if not found[name]} or dict(sources)
    taken = "it is left out" if len(kept) < len(sources) else "nothing that is said of the labels can be relied on"
    doubts = {name: f"{doubt}; {taken}" for name, doubt in found.items() if doubt}
    there = [name for name in reference.names if name in kept] or list(kept)
    mixture = best_mixture(kept, labels, reference.base, there)
    known = verified if (verified != NO_LABEL).any() else None
    model = fit_blind(mixture.belief, labels, mixture.base, none, known)
    # By name, as a file has them, so that sums have one order.
    blind = tuple((name, tuple(_log_mean(kept[name]).tolist())) for name in sorted(mixture.names))
    doubt = next((found[name] for name in mixture.names if found[name]), "") or moved_doubt(model, labels)
    return Fitted(JOINT, replace(model, doubt=doubt, sources=Sources(blind=blind)), doubts=doubts)


def _log_mean(belief: Array) -> Array:
    found: Array = np.log(np.mean(belief, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    return found


def head_reference(names: Iterable[str]) -> Reference:
    """That of heads on features, by the names of all beliefs: the two that resist noise least, and near rows."""
    heads = [name for name in names if name != NEIGHBORS]
    return Reference((*heads[:2], NEIGHBORS), HEADS)
