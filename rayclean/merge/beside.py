"""The joint model of a network's beliefs with the labels of near rows beside them [our choice].

A network that was trained on all rows has seen the label that it is asked about; the labels of near rows were drawn
apart from it. So their shares are a belief of their own, and the joint model is that of `rayclean.merge.blind`:

- Whether the network adds anything to the near rows, these tell themselves: the nearest one's label, by the shares of
  the others with the network's belief and without. Where it adds nothing (it is unsure, or has learned wrong labels by
  heart) near rows are believed alone.
- The network leans to the row's own label, so with it too few labels seem wrong; by near rows alone, which know their
  classes less, too many. The share of wrong labels is put in the middle, by the lean; both are ends of its interval.

Letters: N rows, K classes, L near rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy

from rayclean.merge.anchors import raised
from rayclean.merge.blind import fit_blind
from rayclean.merge.evidence import temperature
from rayclean.merge.joint import Float64, Ints, JointModel
from rayclean.schema import Array
from rayclean.scores.sources import BELIEF_FLOOR, NearRows, combined
from rayclean.scores.vote import neighbor_shares

NETWORK = 2.7  # sharpness of a network's paths with the shares of near rows
# Measured: .008 where the network adds nothing (Roman numerals), .039 and .36 where it does (CIFAR-10N, CIFAR-100N).
GAIN = 0.02  # nats per near label that the network must add
JUDGED_ROWS = 4000
LEAST_NEAR = 10  # near rows that a row must have on average, for their shares to be a belief


def believed(beliefs: Float64, near_labels: Array | None, near: NearRows) -> Float64:
    """(N, K) the belief that a model is fitted and applied to: of the network, of near rows, or of both.

    Args:
        beliefs: (N, K) of the network.
        near_labels: (N, L) labels of near rows, `NO_LABEL` where there are fewer; None only where `near` is `without`.
        near: which.
    """
    if near == "without" or near_labels is None:
        return beliefs
    shares = neighbor_shares(near_labels, beliefs.shape[1])
    return shares if near == "alone" else combined([beliefs, shares])


def network_gain(beliefs: Float64, near_labels: Array) -> float:
    """Nats per label by which the network's belief tells the nearest row's label better, beside the others'."""
    rows = np.flatnonzero(near_labels[:, 0] >= 0)[:JUDGED_ROWS]
    if not len(rows):
        return 0.0
    # The nearest row's label stands in for the row's own, which the network may have learned.
    target, shares = near_labels[rows, 0], neighbor_shares(near_labels[rows, 1:], beliefs.shape[1])
    return _likelihood(combined([beliefs[rows], shares]), target) - _likelihood(shares, target)


def _likelihood(beliefs: Float64, labels: Ints) -> float:
    """Mean log likelihood of labels by beliefs at their best temperature."""
    logs = temperature(beliefs, labels) * np.log(beliefs + BELIEF_FLOOR)
    return float((logs[np.arange(len(labels)), labels] - scipy.special.logsumexp(logs, axis=1)).mean())


def fit_beside(beliefs: Float64, near_labels: Array, given: Ints) -> JointModel:
    """Fits the joint model to a random part of the rows.

    Args:
        beliefs: (N, K) of the network.
        near_labels: (N, L) labels of near rows of any label, `NO_LABEL` where there are fewer.
        given: (N,) labels.
    """
    alone = fit_blind(believed(beliefs, near_labels, "alone"), given, NETWORK, none=True)
    if network_gain(beliefs, near_labels) < GAIN:
        return replace(alone, sources=replace(alone.sources, near="alone"))
    belief = believed(beliefs, near_labels, "with")
    both = fit_blind(belief, given, NETWORK, none=True)
    shares = neighbor_shares(near_labels, beliefs.shape[1])
    rates = [_wrong(both, belief, given), _wrong(alone, shares, given)]
    model = raised(both, sum(rates) / 2, belief, given)
    low, high = both.noise or (0.0, 1.0), alone.noise or (0.0, 1.0)
    model = replace(model, noise=(min(low[0], high[0]), max(low[1], high[1], rates[1])))
    return replace(model, sources=replace(model.sources, near="with"), blind=False)


def _wrong(model: JointModel, beliefs: Float64, given: Ints) -> float:
    return float(1 - model.posterior(beliefs, given).label_score.mean(dtype=np.float64))
