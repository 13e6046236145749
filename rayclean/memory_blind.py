"""The merge of beliefs in memory that have not seen the labels of their rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.errors import RaycleanWarning
from rayclean.merge.blind import fit_blind
from rayclean.merge.doubts import chance_doubt, moved_doubt
from rayclean.merge.evidence import best_mixture
from rayclean.merge.models import Fitted
from rayclean.merge.table import NO_LABEL
from rayclean.schema import JOINT

HEADS = 2.5  # sharpness of linear heads by MixUp and votes of neighbours together
PREDICTIONS = 3.3  # of networks that users bring, which know their classes better


class OutOfFold(NamedTuple):
    """A fitted merge.

    Attributes:
        belief: (N, K) that it is applied to.
        sources: whose beliefs these are, together.
    """

    fitted: Fitted
    belief: Array
    sources: tuple[str, ...]


def fit_out_of_fold(
    sources: Mapping[str, Array],
    labels: Array,
    sampled: Array,
    base: float,
    reference: Sequence[str],
    none: bool,
    verified: Array,
) -> OutOfFold:
    """Chooses among beliefs and fits the joint model to them.

    Sources that agree with the labels no more than by chance are left out, with a warning; where that are all, the
    result is not reliable and says why.

    Args:
        sources: name -> (N, K).
        labels: (N,).
        sampled: (N,) bool, rows that the model is fitted to.
        base: sharpness of the reference together.
        reference: names of sources.
        none: whether rows may be of none of the classes.
        verified: (N,) labels that people have verified, `NO_LABEL` elsewhere.
    """
    doubts = {name: chance_doubt(belief, labels) for name, belief in sources.items()}
    kept = {name: belief for name, belief in sources.items() if not doubts[name]} or dict(sources)
    for name, doubt in doubts.items():
        if doubt:
            taken = "it is left out" if name not in kept else "nothing that is said of the labels can be relied on"
            warnings.warn(f"{name}: {doubt}; {taken}", RaycleanWarning, stacklevel=4)
    there = [name for name in reference if name in kept] or list(kept)
    few = {name: belief[sampled] for name, belief in kept.items()}
    mixture = best_mixture(few, labels[sampled], base, there)
    known = verified if (verified != NO_LABEL).any() else None
    model = fit_blind(mixture.belief, labels[sampled], mixture.base, none, None if known is None else known[sampled])
    whole = mixture.belief if sampled.all() else mixture.again(kept)
    doubt = next((doubts[name] for name in mixture.names if doubts[name]), "") or moved_doubt(model, labels)
    model = replace(model, doubt=doubt)
    return OutOfFold(Fitted(JOINT, model), np.asarray(whole), mixture.names)
