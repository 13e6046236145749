"""The merge of predictions that users bring, which have not seen the labels of their rows if all is as they say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rayclean.config import Config
from rayclean.memory.merge import fit_seen, sampled_rows
from rayclean.memory.rows import Samples, find_neighbors
from rayclean.memory.scores import EVIDENCE, vote_of
from rayclean.merge.doubts import chance_doubt, near_doubt, seen_doubt
from rayclean.merge.models import Fitted
from rayclean.merge.out_of_fold import Reference, fit_out_of_fold
from rayclean.schema import JOINT, NO_LABEL, NO_ROW, Array
from rayclean.scores.blind import NEIGHBORS, SHARE_NEIGHBORS, mixed
from rayclean.scores.block import BlockScores
from rayclean.scores.vote import neighbor_shares
from rayclean.train.sample_losses import sample_losses

PREDICTIONS = 3.6  # sharpness of networks that users bring, which know their classes better than linear heads


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
        sources[NEIGHBORS] = neighbor_shares(near, num_classes)
    fitted = fit_sources(config, samples, sources, verified)
    for name, doubt in fitted.doubts.items():
        warnings.warn(f"{name}: {doubt}", stacklevel=3)
    return fitted, replace(block, belief=mixed(sources, fitted.sources))


def fit_sources(config: Config, samples: Samples, sources: Mapping[str, Array], verified: Array) -> Fitted:
    """Fits the joint model to predictions, and to what near rows say beside them."""
    sampled = sampled_rows(config, samples, next(iter(sources.values())).shape[1])
    few = {name: belief[sampled] for name, belief in sources.items()}
    reference = Reference(("pred_probs",), PREDICTIONS)
    return fit_out_of_fold(few, samples.labels[sampled], reference, NEIGHBORS in sources, verified[sampled])
