"""Scores as of each epoch: AUROC and mean over right and wrong labels, the papers' figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rayclean.config import MAIN
from rayclean.evaluate import metrics
from rayclean.schema import Array
from rayclean.scores.simulated_loss import odd_score
from rayclean.scores.table import ScoreFiles
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, num_blocks
from rayclean.train.trajectories import read_trajectory


class Point(NamedTuple):
    """A score at one epoch: its AUROC, and its mean over the rows with right and with wrong labels."""

    auroc: float
    mean_clean: float
    mean_wrong: float


Curve = dict[int, Point]


def point(scores: Array, clean: Array) -> Point:
    """How a score stands, over the rows where it is defined."""
    defined, their_clean, _ = metrics.defined_only(scores, clean)
    means = (
        float(part.mean()) if len(part) else float("nan") for part in (defined[their_clean], defined[~their_clean])
    )
    return Point(metrics.auroc(defined, their_clean), *means)


def trajectory_curves(
    store: Store, folder: str, epochs: int, block_rows: int, known: Array, clean: Array
) -> dict[str, Curve]:
    """Each trajectory score as of each epoch."""
    blocks = num_blocks(len(known), block_rows)
    running = RunningTrajectory(len(known))
    curves: dict[str, Curve] = {}
    for epoch in range(1, epochs + 1):
        pieces = [read_trajectory(store, folder, epoch, block) for block in range(blocks)]
        running.add(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
        for name, scores in running.scores().items():
            curves.setdefault(name, {})[epoch] = point(scores[known], clean)
    return curves


def snapshot_curves(
    folders: dict[int, str], read: Callable[[str], Array], known: Array, clean: Array
) -> tuple[Curve, Curve]:
    """A score at each snapshot, and its mean over the snapshots up to then.

    Args:
        folders: by epoch.
        read: a folder's score of all rows, (N,).
        known: (N,) rows with a truth.
        clean: whether the labels of these are right.
    """
    total = np.zeros(len(known))
    single: Curve = {}
    mean: Curve = {}
    for count, (epoch, folder) in enumerate(folders.items(), start=1):
        scores = read(folder)
        total += scores
        single[epoch] = point(scores[known], clean)
        mean[epoch] = point(total[known] / count, clean)
    return single, mean


def odd_curve(
    store: Store, folder: str, epochs: int, average: int, block_rows: int, known: Array, clean: Array
) -> Curve:
    """ODD's score as if each epoch were E: the mean loss of the last `average` epochs."""
    blocks = num_blocks(len(known), block_rows)
    losses: deque[Array] = deque(maxlen=average)
    curve: Curve = {}
    for epoch in range(1, epochs + 1):
        losses.append(np.concatenate([read_trajectory(store, folder, epoch, block)[0] for block in range(blocks)]))
        curve[epoch] = point(odd_score(np.stack(losses))[known], clean)
    return curve


class OddEpoch(NamedTuple):
    """Where ODD's score comes from: a role, its epoch E, and how many epochs up to it are averaged."""

    role: str
    epoch: int
    average: int


@dataclass(frozen=True)
class Epochs:
    """At which epochs the scores of a run were taken.

    Attributes:
        trained: role -> (folder, epochs with trajectories).
        iofm: of `ScoreFiles.iofm_folders`.
        inn: of `ScoreFiles.inn_folders`.
        vote: of `ScoreFiles.vote_folders`.
        influence: of `ScoreFiles.influence_folders`.
        last: of role `main`'s last snapshot.
        odd: None without.
    """

    trained: dict[str, tuple[str, int]]
    iofm: tuple[int, ...]
    inn: tuple[int, ...]
    vote: tuple[int, ...]
    influence: tuple[int, ...]
    last: int
    odd: OddEpoch | None


def score_curves(files: ScoreFiles, epochs: Epochs, known: Array, clean: Array) -> dict[str, Curve]:
    """Each score that several epochs have, as of each."""
    store, block_rows = files.catalog.store, files.block_rows
    blocks = range(num_blocks(files.num_rows, block_rows))

    def column(name: str) -> Callable[[str], Array]:
        return lambda folder: np.concatenate(
            [map_arrays(store, f"{folder}/{block_name(block)}.safetensors")[name] for block in blocks]
        )

    def influence(name: str) -> Callable[[str], Array]:
        return lambda folder: np.concatenate([files.influence(folder, block)[name] for block in blocks])

    curves: dict[str, Curve] = {}
    for role in files.trajectory_folders:
        ending = "" if role == MAIN else f"_{role}"
        found = trajectory_curves(store, *epochs.trained[role], block_rows, known, clean)
        curves |= {f"{name}{ending}": curve for name, curve in found.items()}
    if files.iofm_folders:
        walked = dict(zip(epochs.iofm, files.iofm_folders, strict=True))
        curves["iofm_last"], curves["iofm"] = snapshot_curves(walked, column("score"), known, clean)
    for name, taken, folders, read in (
        ("inn", epochs.inn, files.inn_folders, column("score")),
        ("vote", epochs.vote, files.vote_folders, column("vote")),
        ("osm", epochs.influence, files.influence_folders, influence("osm")),
        ("osd", epochs.influence, files.influence_folders, influence("osd")),
    ):
        if name in files.names and folders:
            curves[name], _ = snapshot_curves(dict(zip(taken, folders, strict=True)), read, known, clean)
    if epochs.odd is not None:
        trained = epochs.trained[epochs.odd.role]
        curves["odd"] = odd_curve(store, *trained, epochs.odd.average, block_rows, known, clean)
    return curves
