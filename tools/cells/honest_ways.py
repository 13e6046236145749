"""How the labels of a cell are judged: by rayclean, by what cleanlab makes of probabilities, by who knows the truth.

Letters: N rows, d features, K classes.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rayclean.config import parse_config
from rayclean.evaluate.metrics import auroc
from rayclean.memory.blind import PREDICTIONS, fit_predicted, score_predictions
from rayclean.memory.inputs import read_probabilities, read_stored_features
from rayclean.memory.merge import MEMORY
from rayclean.memory.rows import Samples
from rayclean.memory.run import VerifiedArray, begin_features, compute, merged
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL
from rayclean.merge.transition import adjusted
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.sources import BELIEF_FLOOR, LAST, Sources
from rayclean.storage.contents import read_json
from rayclean.storage.draws import pixel_digest
from rayclean.storage.units import num_blocks
from tools.cells.honest_data import Rows
from tools.cells.honest_steps import InSteps, Judged, tree_of
from tools.cells.peers_training import peer_package
from tools.cells.run_peers import METHODS

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
    """`LabelScorer.fit_features`, whose run is kept, so that other verified labels change the merge alone."""

    rows: Rows
    seed: int

    def begun(self, verified: Array) -> Run:
        """A run on the features, not computed."""
        rows, keys = self.rows, [str(row) for row in range(len(self.rows.labels))]
        data = {"shards": MEMORY, "classes": rows.num_classes, "features": "npy", "image": "none"}
        config = parse_config({"run": {"dir": MEMORY, "seed": self.seed}, "data": data}, "honest cells")
        features = read_stored_features(rows.inputs, len(keys))
        return begin_features(config, features, rows.labels, keys, None, "cpu", verified)

    @cached_property
    def run(self) -> Run:
        """The scorer's, computed."""
        run = self.begun(np.full(len(self.rows.labels), NO_LABEL))
        compute(lambda: grow(run))
        return run

    def judge(self, verified: Array) -> Judged:
        """As of `Way`."""
        run = self.run
        if (verified != NO_LABEL).any():
            run = replace(run)
            run.__dict__["verified"] = VerifiedArray(verified)
            compute(lambda: grow(run))
        return Judged(*merged(run))

    def _beliefs(self, sources: Sources) -> Array:
        files = self.run.score_files()
        blocks = range(num_blocks(files.num_rows, files.block_rows))
        return np.concatenate([files.belief(block, sources) for block in blocks])

    @cached_property
    def belief(self) -> Array:
        """As of `Way`."""
        fit, _ = self.run.merge()
        return self._beliefs(Fitted.from_json(read_json(self.run.store, fit.file(MODEL))).sources)

    def probabilities(self) -> dict[str, tuple[Array, dict[str, Any]]]:
        """As of `Way`: of logistic regression, and the geometric mean of rayclean's heads."""
        began_s = time.perf_counter()
        found, converged = logistic_beliefs(self.rows, self.run.heads.task.folds())
        facts = {"seconds": time.perf_counter() - began_s, "converged": converged}
        return {"logistic": (found, facts), "heads": (self._beliefs(LAST), {})}


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
