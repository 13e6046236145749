"""Scores by features in memory, by the same arithmetic as the stages of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rayclean.config import Config
from rayclean.memory.rows import Samples
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.influence_scores import (
    HESSIAN_SALT,
    LastLayer,
    fit,
    influence_scores,
    raw_influence,
    solve,
    totals_of,
)
from rayclean.scores.simulated_loss import NUM_DRAWS, odd_drop, odd_score, quantile_of, simulated_losses, threshold
from rayclean.scores.vote import neighbor_vote
from rayclean.storage.draws import drawn_of_each_class

EVIDENCE = 3


def vote_of(lists: Array, labels: Array) -> Array:
    """(N,) the vote of lists of any label, (N, L) with -1 where they are shorter."""
    there = lists >= 0
    return neighbor_vote(np.where(there, labels[np.maximum(lists, 0)], NO_LABEL), there, labels)


def influence_of(config: Config, rows: LastLayer, samples: Samples) -> dict[str, Array]:
    """`osm` of rows as the last layer sees them."""
    settings, seed = config.influence, config.run.seed
    share = min(1.0, settings.hessian_rows / len(samples.labels))
    chosen = drawn_of_each_class(
        seed, HESSIAN_SALT, samples.draws, samples.labels, lambda count: math.ceil(share * count)
    )
    sample = LastLayer(*(column[chosen] for column in rows))
    solved, _ = solve(sample, None, settings.damping, settings.probes, seed)
    raw = raw_influence(solved, rows)
    return influence_scores(raw, fit(totals_of([raw]), raw, settings.standardize), settings.standardize)


def odd_of(
    config: Config, losses: Sequence[Array], weight: Array, bias: Array, features: Array | None
) -> dict[str, Array]:
    """`odd`, `odd_quantile` and `odd_drop` of rows.

    Args:
        config: how.
        losses: (N,) after each epoch.
        weight: (K, d) of the last layer at ODD's epoch.
        bias: (K,).
        features: (N, d) there; needed where `simulated_loss.kind` is not `gauss`.
    """
    settings = config.simulated_loss
    epoch = min(settings.epoch_of(len(losses)), len(losses))  # heads may learn fewer epochs than it names
    moments = {}
    if features is not None and settings.kind != "gauss":
        seen = features.astype(np.float64)
        moments = {"mean": seen.mean(axis=0), "std": seen.std(axis=0), "features": seen}
    simulated = simulated_losses(weight, bias, settings.kind, NUM_DRAWS, config.run.seed, **moments)
    odd = odd_score(np.stack(losses[max(0, epoch - settings.average) : epoch]))
    at = threshold(simulated, settings.percentile)
    return {"odd": odd, "odd_quantile": quantile_of(-odd, simulated), "odd_drop": odd_drop(-odd, at)}
