"""How the labels of a cell are judged: by rayclean, by what cleanlab makes of probabilities, by who knows the truth.

Letters: N rows, d features, K classes.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rayclean.config import parse_config
from rayclean.evaluate.metrics import auroc
from rayclean.memory.blind import HEADS, PREDICTIONS, fit_predicted, score_predictions
from rayclean.memory.features import DEFAULT_SCORES, FeatureScoring, find_groups
from rayclean.memory.inputs import read_features, read_probabilities
from rayclean.memory.rows import Samples
from rayclean.merge.transition import adjusted
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.block import BlockScores
from rayclean.scores.sources import BELIEF_FLOOR
from rayclean.storage.draws import pixel_digest
from tools.honest_data import Rows
from tools.honest_steps import InSteps, Judged, tree_of
from tools.peers_training import peer_package
from tools.run_peers import METHODS

PREDICTED_SCORES = ("loss", "margin")
MAX_STEPS = 1000  # of logistic regression on few classes
FEW_CLASSES, MAX_STEPS_OF_MANY = 20, 200
SHARPNESSES = (0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
PSEUDO_COUNTS = 2.0  # of T's rows


class Way(Protocol):
    """A way of `LabelScorer`, with what the others are given."""

    rows: Rows

    def judge(self, verified: Array) -> Judged:
        """Judges all rows; `verified` (N,) true labels, `NO_LABEL` where nobody has looked."""

    @property
    def belief(self) -> Array:
        """(N, K) that the joint model is applied to."""

    def probabilities(self) -> dict[str, tuple[Array, dict[str, Any]]]:
        """By name (N, K) out-of-fold probabilities that cleanlab ranks, and what is to be said of them."""


@dataclass
class ByPredictions:
    """`LabelScorer.fit_predictions`."""

    rows: Rows
    seed: int

    @cached_property
    def steps(self) -> InSteps:
        """The scorer's."""
        labels, beliefs = self.rows.labels, read_probabilities(self.rows.inputs, False)
        config = parse_config(tree_of(self.rows, self.seed, PREDICTED_SCORES), "honest cells")
        digests = [pixel_digest(np.array(row)) for row in range(len(labels))]
        samples = Samples.make(labels, digests, [str(row) for row in range(len(labels))])
        predicted = score_predictions(config, samples, beliefs, None)
        fitted, block = fit_predicted(config, samples, predicted, True, np.full(len(labels), NO_LABEL))
        sources = {"pred_probs": beliefs}
        return InSteps(config, samples, fitted, block, sources, ("pred_probs",), PREDICTIONS, none=False)

    def judge(self, verified: Array) -> Judged:
        """As of `Way`."""
        return self.steps.judge(verified)

    @property
    def belief(self) -> Array:
        """As of `Way`."""
        return self.rows.inputs

    def probabilities(self) -> dict[str, tuple[Array, dict[str, Any]]]:
        """As of `Way`."""
        whole = self.rows.inputs.astype(np.float64)
        return {"predictions": (whole / whole.sum(axis=1, keepdims=True), {})}


@dataclass
class ByFeatures:
    """`LabelScorer.fit_features`.

    Attributes:
        kind: what the scorer's parts are made by.
    """

    rows: Rows
    seed: int
    kind: type[FeatureScoring] = FeatureScoring

    @cached_property
    def scoring(self) -> FeatureScoring:
        """The scorer's parts."""
        rows = self.rows
        keys = [str(row) for row in range(len(rows.labels))]
        features = read_features(rows.inputs, len(keys))
        samples = Samples.make(rows.labels, [pixel_digest(row) for row in features], keys)
        config = parse_config(tree_of(rows, self.seed, DEFAULT_SCORES), "honest cells")
        groups = find_groups(samples.digests, None)
        return self.kind(config, samples, features, groups, rows.num_classes, "cpu")

    @cached_property
    def block(self) -> BlockScores:
        """All scores."""
        return self.scoring.block(self.scoring.config.score_names())

    @cached_property
    def steps(self) -> InSteps:
        """The scorer's."""
        scoring = self.scoring
        fitted, block = scoring.fit(self.block, np.full(len(self.rows.labels), NO_LABEL))
        sources, reference = scoring.beliefs(), scoring.reference
        return InSteps(scoring.config, scoring.samples, fitted, block, sources, reference, HEADS, none=True)

    def judge(self, verified: Array) -> Judged:
        """As of `Way`."""
        return self.steps.judge(verified)

    @property
    def belief(self) -> Array:
        """As of `Way`."""
        return self.steps.block.belief

    def probabilities(self) -> dict[str, tuple[Array, dict[str, Any]]]:
        """As of `Way`: of logistic regression, and the geometric mean of rayclean's heads."""
        began_s = time.perf_counter()
        found, converged = logistic_beliefs(self.rows, self.scoring.folds)
        facts = {"seconds": time.perf_counter() - began_s, "converged": converged}
        heads = self.block.belief.astype(np.float64)
        return {"logistic": (found, facts), "heads": (heads / heads.sum(axis=1, keepdims=True), {})}


def logistic_beliefs(rows: Rows, folds: Array) -> tuple[Array, bool]:
    """(N, K) probabilities by scikit-learn's logistic regression on the other folds, and whether all converged.

    Args:
        rows: with features.
        folds: (N,) the fold of each row.
    """
    inputs = StandardScaler().fit_transform(rows.inputs)
    few = rows.num_classes <= FEW_CLASSES
    found, converged = np.zeros((len(inputs), rows.num_classes)), True
    for fold in np.unique(folds):
        seen, model = folds != fold, LogisticRegression(max_iter=MAX_STEPS if few else MAX_STEPS_OF_MANY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that do not reach; it is told by the result
            model.fit(inputs[seen], rows.labels[seen])
        found[np.ix_(~seen, model.classes_)] = model.predict_proba(inputs[~seen])
        converged &= bool((model.n_iter_ < model.max_iter).all())
    return found, converged


def cleanlab_scores(labels: Array, probabilities: Array) -> dict[str, Array]:
    """By method (N,) the quality that cleanlab's package gives labels by probabilities (N, K).

    Raises:
        RaycleanError: it is not installed.
    """
    rank = peer_package("cleanlab.rank")
    return {method: rank.get_label_quality_scores(labels, probabilities, method=method) for method in METHODS}


def oracle(belief: Array, rows: Rows, seed: int) -> tuple[Array, Array]:
    """What the same belief would give to who knows the truth: P(label right) (N,), and the likeliest classes (N,).

    Half the rows judge the others: T and the prior are counted on them, and of `SHARPNESSES` the one is taken under
    which their own labels are told apart best.
    """
    half = np.random.default_rng(seed).permutation(len(rows.labels)) % 2
    log_belief = adjusted(belief, np.log(np.mean(belief, axis=0, dtype=np.float64) + BELIEF_FLOOR))
    right, likeliest = np.empty(len(half)), np.empty(len(half), np.int64)
    for judged in (0, 1):
        there, known = half == judged, half != judged
        transition, prior = _counted(rows, known)
        labels, clean = rows.labels[known], rows.clean[known]
        best = max(
            SHARPNESSES,
            key=lambda s: auroc(_right(_posterior(s * log_belief[known], labels, transition, prior), labels), clean),
        )
        posterior = _posterior(best * log_belief[there], rows.labels[there], transition, prior)
        right[there], likeliest[there] = _right(posterior, rows.labels[there]), posterior.argmax(axis=1)
    return right, likeliest


def _counted(rows: Rows, known: Array) -> tuple[Array, Array]:
    """T (K, K) and prior (K,) by the truth of some rows."""
    there = known & (rows.truth >= 0)
    counts = np.zeros((rows.num_classes, rows.num_classes))
    np.add.at(counts, (rows.truth[there], rows.labels[there]), 1)
    wrong = 1 - np.trace(counts) / counts.sum()
    prior = counts.sum(axis=1) + 1
    counts += PSEUDO_COUNTS * ((1 - wrong) * np.eye(rows.num_classes) + wrong / rows.num_classes)
    return counts / counts.sum(axis=1, keepdims=True), prior / prior.sum()


def _posterior(scaled: Array, labels: Array, transition: Array, prior: Array) -> Array:
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True)) * prior * transition[:, labels].T
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _right(posterior: Array, labels: Array) -> Array:
    return np.asarray(posterior[np.arange(len(labels)), labels])
