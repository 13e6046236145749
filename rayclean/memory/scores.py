"""All scores of samples in memory, by the same arithmetic as the stages of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rayclean.config import MAIN, PLANT, SELF, THRESHOLDED, Config
from rayclean.embed.beliefs import softmax
from rayclean.memory.rows import Embedded, MemoryRole, Samples, Trajectory, find_neighbors, walk_paths
from rayclean.schema import SCORES, Array
from rayclean.scores.aum import aum_excess, aum_threshold
from rayclean.scores.block import BlockScores
from rayclean.scores.influence_scores import (
    HESSIAN_SALT,
    VERIFIED_SALT,
    LastLayer,
    fit,
    influence_scores,
    raw_influence,
    solve,
    totals_of,
)
from rayclean.scores.interpolation import INTERIOR, TRAPEZOID, PathMeans
from rayclean.scores.simulated_loss import NUM_DRAWS, odd_drop, odd_score, quantile_of, simulated_losses, threshold
from rayclean.scores.sources import LAST, Sources, combined
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.scores.vote import neighbor_vote
from rayclean.storage.draws import drawn_of_each_class
from rayclean.train.sample_losses import sample_losses

EVIDENCE = 3


def vote_of(lists: Array, labels: Array) -> Array:
    """(N,) the vote of lists of any label, (N, L) with -1 where they are shorter."""
    there = lists >= 0
    return neighbor_vote(np.where(there, labels[np.maximum(lists, 0)], -1), there, labels)


@dataclass
class History:
    """Scores as of each epoch: what curves are made of. It holds neither networks nor images.

    Attributes:
        trajectories: by role.
        snapshots: score -> epoch -> (N,) values, of scores that are computed from snapshots.
    """

    trajectories: dict[str, list[Trajectory]] = field(default_factory=dict)
    snapshots: dict[str, dict[int, Array]] = field(default_factory=dict)

    def of_score(self, name: str) -> Iterator[tuple[int, Array]]:
        """Epochs that a score has values for, ascending, with the values; none where only the last are kept."""
        yield from self.snapshots.get(name, {}).items()
        role = SCORES[name].role
        trajectories = self.trajectories.get(role, [])
        if SCORES[name].family != "trajectory" or name == "aum_excess" or not trajectories:
            return
        plain = name if role == MAIN else name.removesuffix(f"_{role}")
        running = RunningTrajectory(len(trajectories[0][0]))
        for epoch, each in enumerate(trajectories, start=1):
            running.add(*each)
            yield epoch, running.scores()[plain]


@dataclass
class Scoring:
    """The scores of samples by trained roles.

    Attributes:
        verified: samples whose labels are right, for OSD; None without.
        history: filled by `block`.
        walked: beliefs of role `main` along paths, by epoch, filled by `block`.
    """

    config: Config
    samples: Samples
    roles: dict[str, MemoryRole]
    verified: Samples | None
    history: History = field(default_factory=History)
    walked: dict[int, list[Array]] = field(default_factory=dict)

    def block(self) -> BlockScores:
        """All scores of the config, and what the table needs beside them."""
        names, main = self.config.score_names(), self.roles[MAIN]
        scores = self._trajectories()
        one_minus: dict[str, Array] = {}
        facts: dict[str, Array] = {}
        last = self._embedded(MAIN, main.last)
        lists = find_neighbors(self.samples, last.features, self.config.neighbors.vote_num, any_label=True).rows
        near_labels = np.where(lists >= 0, self.samples.labels[np.maximum(lists, 0)], -1)
        scores["vote"] = vote_of(lists, self.samples.labels)
        num_paths = None
        if "inn" in names:
            by_epoch = self._inn()
            inn = by_epoch[max(by_epoch)]
            self.history.snapshots["inn"] = {epoch: walk.score for epoch, walk in by_epoch.items()}
            scores["inn"], one_minus["inn"] = inn.score, inn.one_minus
            for epoch, walk in by_epoch.items():
                self.walked.setdefault(epoch, []).append(walk.belief[:, :-1])
        if {"iofm", "iofm_last"} & set(names):
            by_snapshot = self._iofm("iofm" in names)
            walks = list(by_snapshot.values())
            singles = np.stack([walk.score for walk, _ in walks])
            means = np.cumsum(singles, axis=0) / np.arange(1, len(walks) + 1)[:, None]
            self.history.snapshots["iofm_last"] = dict(zip(by_snapshot, singles, strict=True))
            self.history.snapshots["iofm"] = dict(zip(by_snapshot, means, strict=True))
            for name, used in (("iofm", walks), ("iofm_last", walks[-1:])):
                scores[name] = np.mean([walk.score for walk, _ in used], axis=0)
                one_minus[name] = np.mean([walk.one_minus for walk, _ in used], axis=0)
            for epoch, (walk, _) in by_snapshot.items():
                self.walked.setdefault(epoch, []).insert(0, walk.belief[:, :-1])
            num_paths = walks[-1][1]
        if {"osm", "osd"} & set(names):
            found = self._influence("osd" in names)
            facts |= {"osd_votes": found.pop("osd_votes")} if "osd_votes" in found else {}
            scores |= found
        if "aum_excess" in names:
            scores["aum_excess"] = self._aum_excess()
        if "odd" in names:
            judged = self._odd()
            scores["odd"] = judged.pop("odd")
            facts |= judged
        wanted = {name: np.asarray(scores[name], np.float64) for name in names}
        belief, nearest = self.belief(LAST), lists[:, :EVIDENCE]
        return BlockScores(wanted, one_minus, facts, belief, num_paths, nearest, near_labels)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Snapshots of role `main` whose beliefs there are, ascending."""
        return tuple(sorted({*self.walked, self.roles[MAIN].last}))

    @property
    def others(self) -> tuple[str, ...]:
        """The other networks that learned the given labels."""
        return tuple(name for name in self.roles if name not in (MAIN, PLANT, *THRESHOLDED))

    def belief(self, sources: Sources) -> Array:
        """(N, K) the belief of some sources, see `BlockScores`."""
        epoch = self.roles[MAIN].last if sources.epoch is None else sources.epoch
        walked = self.walked.get(epoch)
        main = np.mean(walked, axis=0) if walked else self.belief_of_role(MAIN)
        return combined([main, *map(self.belief_of_role, sources.roles)])

    def belief_of_role(self, role: str) -> Array:
        """(N, K) the softmax of a role's last snapshot."""
        return softmax(self._embedded(role, self.roles[role].last).logits)

    def first_neighbors(self) -> Array:
        """(N, 3) the nearest rows of any label by the features of the first snapshot, -1 where there are fewer."""
        features = self._embedded(MAIN, self.epochs[0]).features
        return find_neighbors(self.samples, features, self.config.neighbors.vote_num, any_label=True).rows[:, :EVIDENCE]

    def _embedded(self, role: str, epoch: int) -> Embedded:
        """What a role's snapshot makes of the samples; computed once."""
        trained = self.roles[role]
        if epoch not in trained.embedded:
            trained.embedded[epoch] = trained.embed(self.samples, epoch, self.config.blocks.rows)
        return trained.embedded[epoch]

    def _trajectories(self) -> dict[str, Array]:
        scores: dict[str, Array] = {}
        for name, role in self.roles.items():
            running = RunningTrajectory(len(self.samples.labels))
            for epoch in role.training.trajectories:
                running.add(*epoch)
            if role.training.trajectories:
                self.history.trajectories[name] = role.training.trajectories
                ending = "" if name == MAIN else f"_{name}"
                scores |= {f"{score}{ending}": values for score, values in running.scores().items()}
        if not self.roles[MAIN].training.trajectories:
            loss, margin, _ = sample_losses(self._embedded(MAIN, 0).logits, self.samples.labels)
            scores |= {"loss": -loss, "margin": margin}
        return scores

    def _iofm(self, all_snapshots: bool) -> dict[int, tuple[PathMeans, Array]]:
        """IOFM at each snapshot, or at the last alone, with the paths of each row."""
        main, iofm, config = self.roles[MAIN], self.config.iofm, self.config
        walks = {}
        for epoch in config.train.snapshot_epochs() if all_snapshots else (main.last,):
            embedded = self._embedded(MAIN, epoch)
            lists = find_neighbors(self.samples, embedded.features, iofm.num, any_label=False).rows
            pairs = config.blocks.pairs
            walks[epoch] = walk_paths(self.samples, main, epoch, embedded, lists, iofm.steps, TRAPEZOID, pairs)
        return walks

    def _inn(self) -> dict[int, PathMeans]:
        """INN at each snapshot of `inn.epochs`, or at the last alone."""
        main, inn = self.roles[MAIN], self.config.inn
        weight = TRAPEZOID if inn.end_points else INTERIOR
        pairs = self.config.blocks.pairs
        walks = {}
        for epoch in sorted(inn.epochs or [main.last]):
            embedded = space = self._embedded(MAIN, epoch)
            if inn.features not in (SELF, MAIN):
                space = self._embedded(inn.features, self.roles[inn.features].last)
            lists = find_neighbors(self.samples, space.features, inn.num, any_label=True).rows
            walks[epoch], _ = walk_paths(self.samples, main, epoch, embedded, lists, inn.steps, weight, pairs)
        return walks

    def _influence(self, wants_osd: bool) -> dict[str, Array]:
        role = self.roles[self.config.influence.role]
        embedded = self._embedded(self.config.influence.role, role.last)
        verified = None
        if wants_osd and self.verified is not None:
            found = role.embed(self.verified, role.last, self.config.blocks.rows)
            num, ids, labels = self.config.influence.validation_num, self.verified.draws, self.verified.labels
            kept = drawn_of_each_class(self.config.run.seed, VERIFIED_SALT, ids, labels, lambda _: num)
            verified = LastLayer(found.logits[kept], found.features[kept], labels[kept])
        rows = LastLayer(embedded.logits, embedded.features, self.samples.labels)
        return influence_of(self.config, rows, self.samples, verified)

    def _aum_excess(self) -> Array:
        roles = [self.roles[name] for name in THRESHOLDED]
        margins = (np.stack([margin for _, margin, _ in role.training.trajectories]) for role in roles)
        aum = np.stack([each.astype(np.float64).mean(axis=0) for each in margins])
        drawn = np.stack([role.labels == role.spec.num_classes - 1 for role in roles])
        thresholds = np.array([aum_threshold(each[which]) for each, which in zip(aum, drawn, strict=True)])
        return aum_excess(aum, thresholds, drawn)

    def _odd(self) -> dict[str, Array]:
        settings = self.config.simulated_loss
        role = self.roles[settings.role]
        epoch = settings.epoch_of(len(role.training.trajectories))
        state = role.training.weights[epoch]
        weight, bias = state["head.weight"].numpy(), state["head.bias"].numpy()
        features = None if settings.kind == "gauss" else self._embedded(settings.role, epoch).features
        return odd_of(self.config, [loss for loss, _, _ in role.training.trajectories], weight, bias, features)


def influence_of(config: Config, rows: LastLayer, samples: Samples, verified: LastLayer | None) -> dict[str, Array]:
    """`osm`, and with verified rows `osd` and `osd_votes`, of rows as the last layer sees them."""
    settings, seed = config.influence, config.run.seed
    share = min(1.0, settings.hessian_rows / len(samples.labels))
    chosen = drawn_of_each_class(
        seed, HESSIAN_SALT, samples.draws, samples.labels, lambda count: math.ceil(share * count)
    )
    sample = LastLayer(*(column[chosen] for column in rows))
    solved, _ = solve(sample, verified, settings.damping, settings.probes, seed)
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
