"""The scores of labels by features that are there: heads that are blind to a fold, neighbours, paths between features.

Everything is arithmetic on one matrix; no image is read. Rows of one group (a clip, equal features) share a fold, and
are no neighbours of each other, so that what is said of a label has not seen it.

Letters: N rows, d features, K classes, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax, softmax

from rayclean.config import Config
from rayclean.memory.blind import HEADS, SHARE_NEIGHBORS, fit_out_of_fold
from rayclean.memory.merge import fit_seen, sampled_rows
from rayclean.memory.rows import Samples
from rayclean.memory.scores import EVIDENCE, influence_of, odd_of, vote_of
from rayclean.memory.training import Trajectory
from rayclean.merge.models import Fitted
from rayclean.neighbors.brute import list_neighbors
from rayclean.neighbors.select import Points
from rayclean.schema import JOINT, NO_LABEL, Array
from rayclean.scores.block import BlockScores
from rayclean.scores.feature_paths import feature_paths
from rayclean.scores.influence_scores import LastLayer
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.scores.vote import neighbor_shares
from rayclean.storage.draws import uniform
from rayclean.train.head_loop import train_heads
from rayclean.train.heads import Heads, HeadSettings, standardized
from rayclean.train.sample_losses import sample_losses

DEFAULT_SCORES = ("loss", "ens_loss", "margin", "aum", "wrong_events", "iofm_last", "vote", "odd")
FEATURE_SCORES = (*DEFAULT_SCORES, "inn", "osm")


def find_groups(digests: Array, groups: Sequence[str] | None) -> Array:
    """Which rows say nothing of each other: (N,) int64 ids, of equal features or of one group, or of both by others.

    Args:
        digests: (N, 2) of the features.
        groups: (N,) names, or None.
    """
    _, copies = np.unique(digests, axis=0, return_inverse=True)
    copies = copies.ravel()
    if groups is None:
        return copies
    _, named = np.unique(np.asarray(groups), return_inverse=True)
    num_copies = int(copies.max()) + 1
    size = num_copies + int(named.max()) + 1
    edges = coo_array((np.ones(len(copies)), (copies, num_copies + named)), shape=(size, size))
    _, found = connected_components(edges, directed=False)
    return found[copies].astype(np.int64)


@dataclass
class FeatureScoring:
    """The scores of rows by their features.

    Attributes:
        samples: the rows; digests are of the features.
        features: (N, d).
        groups: (N,) of `find_groups`.
    """

    config: Config
    samples: Samples
    features: Array
    groups: Array
    num_classes: int
    device: str
    settings: HeadSettings = field(default_factory=HeadSettings)

    @cached_property
    def folds(self) -> Array:
        """(N,) the fold of each row, drawn for its group."""
        smallest = np.full(int(self.groups.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(smallest, self.groups, self.samples.draws)
        drawn = uniform(self.config.run.seed, "heads.fold", smallest[self.groups])
        return (drawn * self.settings.folds).astype(np.int64)

    @cached_property
    def inputs(self) -> torch.Tensor:
        """(N, d) features as heads take them."""
        return torch.from_numpy(standardized(self.features)).to(self.device)

    @cached_property
    def trained(self) -> tuple[Heads, list[list[Trajectory]], list[tuple[Array, Array]]]:
        """The heads, by weight decay what the seeing one makes of the rows after each epoch, and its layer at ODD's."""
        courses: list[list[Trajectory]] = [[] for _ in self.settings.weight_decays]
        epochs = self.settings.epochs_of(len(self.features))
        layers: list[tuple[Array, Array]] = []
        judged = min(self.config.simulated_loss.epoch_of(epochs), epochs)
        labels = self.samples.labels
        seed = self.config.run.seed
        for heads in train_heads(self.inputs, labels, self.folds, self.num_classes, self.settings, seed):
            for decay, course in enumerate(courses):
                loss, margin, wrong = sample_losses(heads.seeing_logits(self.inputs, decay), labels)
                course.append((loss.astype(np.float32), margin.astype(np.float32), wrong))
            if len(courses[0]) == judged:
                layers = [heads.layer(heads.seeing(decay)) for decay in range(len(courses))]
        return heads, courses, layers

    @cached_property
    def blind(self) -> list[Array]:
        """By weight decay (N, K) logits of heads that are blind to the row's fold."""
        heads = self.trained[0]
        return [heads.blind_logits(self.inputs, decay) for decay in range(len(self.settings.weight_decays))]

    @cached_property
    def best(self) -> int:
        """The weight decay whose blind heads tell the given labels best: that of scores which have one head."""
        rows = np.arange(len(self.samples.labels)), self.samples.labels
        return int(np.argmax([log_softmax(logits, axis=1)[rows].mean() for logits in self.blind]))

    @cached_property
    def neighbors(self) -> Array:
        """(N, L) the nearest rows of any label and other groups, by the angle between features; -1 where fewer."""
        num = max(SHARE_NEIGHBORS, self.config.neighbors.vote_num)
        return self._nearest(num, any_label=True)

    def _nearest(self, num: int, any_label: bool) -> Array:
        values = self.inputs.cpu().numpy()
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        rows = np.arange(len(values))
        twins = self.groups.astype(np.uint64)[:, None]
        # Twins are left out among rows of one label; of a group no row is a neighbour, whatever the label.
        labels = np.zeros_like(self.samples.labels) if any_label else self.samples.labels
        points = Points(rows, labels, twins, self.samples.draws, lambda at: values[at])
        return list_neighbors(points, rows, num, any_label, torch.device(self.device)).rows

    def beliefs(self) -> dict[str, Array]:
        """By name (N, K) beliefs that have not seen the rows' labels."""
        decays = self.settings.weight_decays
        heads = {
            f"head {decay:g}": softmax(z.astype(np.float64), axis=1)
            for decay, z in zip(decays, self.blind, strict=True)
        }
        lists = self.neighbors[:, :SHARE_NEIGHBORS]
        labels = np.where(lists >= 0, self.samples.labels[np.maximum(lists, 0)], NO_LABEL)
        return heads | {"neighbors": neighbor_shares(labels, self.num_classes)}

    @property
    def reference(self) -> tuple[str, ...]:
        """Of these beliefs those whose mixture has the usual sharpness."""
        return (*(f"head {decay:g}" for decay in self.settings.weight_decays[:2]), "neighbors")

    def block(self, names: tuple[str, ...]) -> BlockScores:
        """The scores of these names, and those of the blind heads, whose geometric mean is the belief."""
        labels, config = self.samples.labels, self.config
        heads, courses, layers = self.trained
        running = RunningTrajectory(len(labels))
        for each in courses[self.best]:
            running.add(*each)
        scores: dict[str, Array] = dict(running.scores())
        one_minus: dict[str, Array] = {}
        facts: dict[str, Array] = {}
        scores["vote"] = vote_of(self.neighbors[:, : config.neighbors.vote_num], labels)
        num_paths = None
        if "iofm_last" in names:
            lists = self._nearest(config.iofm.num, any_label=False)
            seen = heads.seeing_logits(self.inputs, self.best)
            walked = feature_paths(seen, seen, lists, config.iofm.steps, labels)
            scores["iofm_last"], one_minus["iofm_last"] = walked.score, walked.one_minus
            num_paths = (lists >= 0).sum(axis=1)
        if "inn" in names:
            scores["inn"], one_minus["inn"] = self._inn(heads)
        if "osm" in names:
            last = LastLayer(heads.seeing_logits(self.inputs, self.best), self.inputs.cpu().numpy(), labels)
            scores |= influence_of(config, last, self.samples)
        if "odd" in names:
            losses = [loss for loss, _, _ in courses[self.best]]
            judged = odd_of(config, losses, *layers[self.best], self.inputs.cpu().numpy())
            scores["odd"] = judged.pop("odd")
            facts |= judged
        mean = np.mean([log_softmax(logits.astype(np.float64), axis=1) for logits in self.blind], axis=0)
        loss, margin, _ = sample_losses(mean, labels)
        wanted = {name: np.asarray(scores[name], np.float64) for name in names}
        wanted |= {"loss_oof": 0.0 - loss, "margin_oof": margin}
        return BlockScores(wanted, one_minus, facts, softmax(mean, axis=1), num_paths, self.neighbors[:, :EVIDENCE])

    def fit(self, block: BlockScores, verified: Array) -> tuple[Fitted, BlockScores]:
        """The model of `merge.score`, and the scores with the belief that it is applied to.

        Args:
            block: of `block`.
            verified: (N,) labels that people have verified, `NO_LABEL` elsewhere.
        """
        if self.config.merge_score() != JOINT:
            return fit_seen(self.config, self.samples, block), block
        sampled = sampled_rows(self.config, self.samples, self.num_classes)
        found = fit_out_of_fold(self.beliefs(), self.samples.labels, sampled, HEADS, self.reference, True, verified)
        return found.fitted, replace(block, belief=found.belief)

    def _inn(self, heads: Heads) -> tuple[Array, Array]:
        """INN by the head that is blind to the row, also at its neighbours: score and 1 - score."""
        inn, labels = self.config.inn, self.samples.labels
        lists = self.neighbors[:, : inn.num]
        score, one_minus = np.empty(len(labels)), np.empty(len(labels))
        for fold in range(self.settings.folds):
            rows = np.flatnonzero(self.folds == fold)
            logits = heads.logits(self.inputs, np.arange(len(labels)), heads.blind_to(fold, self.best))
            walked = feature_paths(logits[rows], logits, lists[rows], inn.steps, labels[rows])
            score[rows], one_minus[rows] = walked.score, walked.one_minus
        return score, one_minus
