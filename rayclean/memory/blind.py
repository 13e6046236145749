"""The merge of beliefs in memory that have not seen the labels of their rows, and of predictions that users bring."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rayclean.config import Config
from rayclean.memory.merge import fit_seen, sampled_rows
from rayclean.memory.rows import Samples, find_neighbors
from rayclean.memory.scores import EVIDENCE, vote_of
from rayclean.merge.blind import fit_blind
from rayclean.merge.doubts import chance_doubt, moved_doubt, near_doubt, seen_doubt
from rayclean.merge.evidence import best_mixture
from rayclean.merge.models import Fitted
from rayclean.schema import JOINT, NO_LABEL, NO_ROW, Array
from rayclean.scores.block import BlockScores
from rayclean.scores.vote import neighbor_shares
from rayclean.train.sample_losses import sample_losses

SHARE_NEIGHBORS = 50  # whose labels are a belief
HEADS = 2.7  # sharpness of linear heads by MixUp and votes of neighbours together
PREDICTIONS = 3.6  # of networks that users bring, which know their classes better


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
            warnings.warn(f"{name}: {doubt}; {taken}", stacklevel=4)
    there = [name for name in reference if name in kept] or list(kept)
    few = {name: belief[sampled] for name, belief in kept.items()}
    mixture = best_mixture(few, labels[sampled], base, there)
    known = verified if (verified != NO_LABEL).any() else None
    model = fit_blind(mixture.belief, labels[sampled], mixture.base, none, None if known is None else known[sampled])
    whole = mixture.belief if sampled.all() else mixture.again(kept)
    doubt = next((doubts[name] for name in mixture.names if doubts[name]), "") or moved_doubt(model, labels)
    model = replace(model, doubt=doubt)
    return OutOfFold(Fitted(JOINT, model), np.asarray(whole), mixture.names)


class Predicted(NamedTuple):
    """Predictions that users bring, scored.

    Attributes:
        block: loss and margin, with features the vote; the belief is the predictions.
        near: (N, L) labels of near rows by features, -1 where there are fewer; L is 0 without features.
    """

    block: BlockScores
    near: Array


def score_predictions(config: Config, samples: Samples, belief: Array, features: Array | None) -> Predicted:
    """Loss and margin of predictions (N, K), and the vote of neighbours by features (N, d) where there are any.

    Near rows that agree with the labels no more than by chance are left out, with a warning: features in another order.
    """
    labels = samples.labels
    with np.errstate(divide="ignore"):
        logarithms = np.maximum(np.log(belief), np.log(np.finfo(np.float64).tiny))
    loss, margin, _ = sample_losses(logarithms, labels)
    scores: dict[str, Array] = {"loss": -loss, "margin": margin, "vote": np.full(len(labels), np.nan)}
    neighbors, near = np.full((len(labels), EVIDENCE), NO_ROW), np.full((len(labels), 0), NO_LABEL)
    if features is not None:
        num = config.neighbors.vote_num
        lists = find_neighbors(samples, features, max(num, SHARE_NEIGHBORS)).rows
        near = np.where(lists >= 0, labels[np.maximum(lists, 0)], NO_LABEL)
        scores["vote"], neighbors = vote_of(lists[:, :num], labels), lists[:, :EVIDENCE]
        if doubt := near_doubt(near[:, :EVIDENCE], labels):
            warnings.warn(f"features: {doubt}; they are left out", stacklevel=3)
            neighbors, near = np.full_like(neighbors, NO_ROW), near[:, :0]
    wanted = {name: scores[name].astype(np.float64) for name in config.score_names()}
    return Predicted(BlockScores(wanted, {}, {}, belief, None, neighbors), near)


def fit_predicted(
    config: Config, samples: Samples, predicted: Predicted, out_of_fold: bool, verified: Array
) -> tuple[Fitted, BlockScores]:
    """Fits the model of `merge.score` to predictions, as far as they can be what they are said to be."""
    block, near = predicted
    labels, num_classes = samples.labels, block.belief.shape[1]
    if config.merge_score() != JOINT:
        return fit_seen(config, samples, block), block
    seen = seen_doubt(block.belief, labels, near[:, :EVIDENCE]) if out_of_fold else ""
    if seen:
        warnings.warn(f"pred_probs: {seen}; they are taken so", stacklevel=3)
    if seen or not out_of_fold:
        fitted = fit_seen(config, samples, block)
        return fitted.doubted(seen or chance_doubt(block.belief, labels)), block
    sources = {"pred_probs": block.belief}
    if near.shape[1]:
        sources["neighbors"] = neighbor_shares(near, num_classes)
    sampled = sampled_rows(config, samples, num_classes)
    found = fit_out_of_fold(sources, labels, sampled, PREDICTIONS, ("pred_probs",), "neighbors" in sources, verified)
    return found.fitted, replace(block, belief=found.belief)
