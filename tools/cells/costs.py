"""What a score of a finished run cost: epochs of training, further forwards per sample and seconds, by the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rayclean.config import MAIN, SELF, THRESHOLDED
from rayclean.run.families import influences
from rayclean.run.record import STEPS
from rayclean.run.run import Run
from rayclean.run.walks import Walk
from rayclean.schema import SCORES
from rayclean.storage.contents import read_json
from rayclean.storage.units import Job


@dataclass(frozen=True)
class Cost:
    """Of one score, if nothing else were wanted; what two scores share counts for both.

    Attributes:
        epochs: of training, over all networks that the score needs; each is a forward and a backward a sample.
        forwards: a sample, beside these.
        train_s: on the clock, with the forward per sample after each epoch.
        score_s: of work after training, summed over the workers.
    """

    epochs: int
    forwards: float
    train_s: float
    score_s: float


def cost_of(this: Run, score: str) -> Cost:
    """The cost of a score of a finished run."""
    kind, config = SCORES[score], this.config
    roles: Sequence[str] = [kind.role]
    jobs: list[Job] = []
    forwards = 0.0
    walks: Sequence[Walk] = ()
    lists: set[str] = set()
    if score == "odd":
        roles = [config.simulated_loss.role]
        forwards = config.simulated_loss.average
    elif score == "aum_excess":
        roles = THRESHOLDED
        forwards = sum(this.roles[role].trained.epochs for role in roles)
    elif kind.family == "trajectory":
        forwards = this.roles[kind.role].trained.epochs if kind.needs_epochs else 1
    elif kind.family == "influence":
        roles = [config.influence.role]
        role = this.roles[roles[0]]
        jobs = [role.embed(role.last), *list(influences(this).values())[-1]]
    elif kind.family == "vote":
        last = this.main.embed(this.main.last)
        jobs, lists = [last, this.vote(this.main.last)], {this.lists_folder(last, config.neighbors.vote_num)}
    else:
        walks = this.walks_of("inn" if score == "inn" else "iofm")
        walks = walks if score == "iofm" else walks[-1:]
    if score == "inn" and config.inn.file is None and config.inn.features != SELF:
        roles = [MAIN, config.inn.features]
    for walk in walks:
        jobs += [this.main.embed(walk.snapshot), walk.space, this.pairs(walk), this.paths(walk), this.interpolate(walk)]
        lists.add(this.lists_folder(walk.space, walk.num))
    folders = {job.folder for job in jobs} | lists
    entries = [entry for folder in sorted(folders) for entry in _entries(this, folder)]
    counted = sum(entry["facts"].get("forwards", 0) for entry in entries) / this.catalog.num_rows
    epochs = [this.roles[role].trained.epochs for role in roles]
    if score == "odd":
        epochs = [config.simulated_loss.epoch_of(*epochs)]
    return Cost(sum(epochs), forwards + counted, _train_s(this, roles), sum(entry["busy_s"] for entry in entries))


def costs(this: Run) -> dict[str, dict[str, float]]:
    """The costs of all scores of a run, as plain values."""
    return {score: asdict(cost_of(this, score)) for score in this.config.score_names()}


def _entries(this: Run, name: str) -> list[dict[str, Any]]:
    file = f"record/{name}.json"
    found: list[dict[str, Any]] = read_json(this.store, file) if this.store.exists(file) else []
    return found


def _train_s(this: Run, roles: Sequence[str]) -> float:
    return float(sum(entry["wall_s"] for entry in _entries(this, STEPS) if entry.get("role") in roles))
