"""How good each score is, where the truth is known: AUROC per epoch and snapshot, best and final, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.config import MAIN
from rayclean.report import metrics
from rayclean.report.metrics import average_precision, expected_calibration_error, flag_metrics
from rayclean.scores.table import ScoreFiles
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.storage.contents import map_arrays, read_table
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, num_blocks
from rayclean.train.trajectories import read_trajectory

UNKNOWN = -1


@dataclass(frozen=True)
class ScoreQuality:
    """AUROC of one score; clean is the positive class.

    Attributes:
        curve: epoch -> AUROC of the score as of that epoch.
        best: the highest of the curve (needs the truth: for benchmarks only).
        final: at the last epoch.
        average_precision: of finding the wrong labels, at the last epoch.
        mean_clean: epoch -> mean score of the rows with right labels [INN's E_cor].
        mean_wrong: epoch -> mean score of those with wrong ones [INN's E_inc].
    """

    curve: dict[int, float]
    best: float
    best_epoch: int
    final: float
    average_precision: float
    mean_clean: dict[int, float]
    mean_wrong: dict[int, float]


@dataclass(frozen=True)
class Bin:
    """Rows whose `label_score` lies in one of the equal bins of [0, 1]; a calibrated score has both means equal.

    Attributes:
        mean_score: mean `label_score`.
        clean_share: share of rows whose given label is right.
    """

    rows: int
    mean_score: float
    clean_share: float


@dataclass(frozen=True)
class Evaluation:
    """What `rayclean evaluate` prints.

    Attributes:
        reliability: the bins that have rows.
    """

    rows: int
    true_noise_rate: float
    estimated_noise_rate: float
    scores: dict[str, ScoreQuality]
    label_score: dict[str, float]
    predicted_right: dict[str, float]
    reliability: list[Bin]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def truth_by_shard(catalog: Catalog) -> Iterator[tuple[slice, Array]]:
    """Rows and true labels (int64, -1 where unknown) of each shard. Only benchmarks have them; no score reads them."""
    columns = (catalog.shards[name].to_pylist() for name in ("first_row", "rows"))
    for shard, (first, rows) in enumerate(zip(*columns, strict=True)):
        table = catalog.truth_of_shard(shard)
        truth = np.full(rows, UNKNOWN, np.int64)
        if table is not None:
            truth[table["index_in_shard"].to_numpy()] = table["label"].fill_null(UNKNOWN).to_numpy()
        yield slice(first, first + rows), truth


def read_truth(catalog: Catalog) -> Array:
    """(N,) int64 true labels, -1 where unknown."""
    return np.concatenate([truth for _, truth in truth_by_shard(catalog)])


def auroc(scores: Array, clean: Array) -> float:
    """AUROC over the rows whose score is defined."""
    defined, their_clean, _ = metrics.defined_only(scores, clean)
    return metrics.auroc(defined, their_clean)


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


def _quality(curve: Curve, final: Array, clean: Array) -> ScoreQuality:
    areas = {epoch: at.auroc for epoch, at in curve.items()}
    best = max(areas, key=lambda epoch: (areas[epoch], -epoch))
    defined, their_clean, _ = metrics.defined_only(final, clean)
    return ScoreQuality(
        areas,
        areas[best],
        best,
        areas[max(areas)],
        average_precision(defined, their_clean),
        {epoch: at.mean_clean for epoch, at in curve.items()},
        {epoch: at.mean_wrong for epoch, at in curve.items()},
    )


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
    store: Store, folders: dict[int, str], blocks: int, known: Array, clean: Array, column: str = "score"
) -> tuple[Curve, Curve]:
    """A score at each snapshot, and its mean over the snapshots up to then."""
    total = np.zeros(len(known))
    single: Curve = {}
    mean: Curve = {}
    for count, (epoch, folder) in enumerate(folders.items(), start=1):
        names = [f"{folder}/{block_name(block)}.safetensors" for block in range(blocks)]
        scores = np.concatenate([map_arrays(store, name)[column] for name in names])
        total += scores
        single[epoch] = point(scores[known], clean)
        mean[epoch] = point(total[known] / count, clean)
    return single, mean


@dataclass(frozen=True)
class Epochs:
    """At which epochs the scores of a run were taken.

    Attributes:
        trained: role -> (folder, epochs with trajectories).
        iofm: of `ScoreFiles.iofm_folders`.
        inn: of `ScoreFiles.inn_folders`.
        vote: of `ScoreFiles.vote_folders`.
        last: of role `main`'s last snapshot.
        odd: ODD's; None without.
    """

    trained: dict[str, tuple[str, int]]
    iofm: tuple[int, ...]
    inn: tuple[int, ...]
    vote: tuple[int, ...]
    last: int
    odd: int | None


def _curves(files: ScoreFiles, epochs: Epochs, known: Array, clean: Array) -> dict[str, Curve]:
    """Each score that several epochs have, as of each."""
    store, block_rows = files.catalog.store, files.embedding.block_rows
    blocks = num_blocks(files.catalog.num_rows, block_rows)
    curves: dict[str, Curve] = {}
    for role in files.trajectory_folders:
        ending = "" if role == MAIN else f"_{role}"
        found = trajectory_curves(store, *epochs.trained[role], block_rows, known, clean)
        curves |= {f"{name}{ending}": curve for name, curve in found.items()}
    if files.iofm_folders:
        walked = dict(zip(epochs.iofm, files.iofm_folders, strict=True))
        curves["iofm_last"], curves["iofm"] = snapshot_curves(store, walked, blocks, known, clean)
    if files.inn_folders:
        walked = dict(zip(epochs.inn, files.inn_folders, strict=True))
        curves["inn"], _ = snapshot_curves(store, walked, blocks, known, clean)
    voted = dict(zip(epochs.vote, files.vote_folders, strict=True))
    curves["vote"], _ = snapshot_curves(store, voted, blocks, known, clean, "vote")
    return curves


def evaluate(files: ScoreFiles, epochs: Epochs, labels: Array, noise_rate: float, threshold: float) -> Evaluation:
    """Compares every score, and the table, with the truth.

    Args:
        files: the run's scores.
        epochs: when they were taken.
        labels: (N,) true labels, -1 where unknown.
        noise_rate: estimated by the merge.
        threshold: `merge.threshold`.
    """
    catalog, store = files.catalog, files.catalog.store
    known = labels != UNKNOWN
    clean = catalog.label[known] == labels[known]
    curves = _curves(files, epochs, known, clean)
    blocks = [files.read(block) for block in range(num_blocks(catalog.num_rows, files.embedding.block_rows))]
    final = {name: np.concatenate([block.scores[name] for block in blocks])[known] for name in files.names}
    for name, scores in final.items():
        epoch = epochs.odd if name == "odd" and epochs.odd is not None else epochs.last
        curves.setdefault(name, {epoch: point(scores, clean)})
    table = _read_labels(store)
    probability, predicted = table["label_score"][known], table["predicted_label"][known]
    flags = flag_metrics(probability, clean, threshold)
    calibration = expected_calibration_error(probability, clean)
    right = predicted == labels[known]
    return Evaluation(
        rows=int(known.sum()),
        true_noise_rate=float(1 - clean.mean()),
        estimated_noise_rate=noise_rate,
        scores={name: _quality(curves[name], final[name], clean) for name in files.names},
        label_score={
            "auroc": auroc(probability, clean),
            "average_precision": average_precision(probability, clean),
            "ece": calibration.error,
            **{name: float(value) for name, value in asdict(flags).items()},
        },
        predicted_right={
            "all": float(right.mean()),
            "truly_wrong": float(right[~clean].mean()) if (~clean).any() else float("nan"),
            "given_right": float(clean.mean()),
        },
        reliability=_reliability(calibration),
    )


def _reliability(calibration: metrics.Calibration) -> list[Bin]:
    columns = calibration.num_rows.tolist(), calibration.mean_probability.tolist(), calibration.clean_share.tolist()
    return [Bin(*each) for each in zip(*columns, strict=True) if each[0]]


def _read_labels(store: Store) -> dict[str, Array]:
    parts = [name for name in store.list("labels") if name.startswith("part-")]
    columns = ["label_score", "predicted_label"]
    tables = [read_table(store, f"labels/{name}", columns) for name in parts]
    return {name: np.concatenate([table[name].to_numpy() for table in tables]) for name in columns}
