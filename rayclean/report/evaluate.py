"""How good each score is, where the truth is known: AUROC per epoch and snapshot, best and final, and the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
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
    """

    curve: dict[int, float]
    best: float
    best_epoch: int
    final: float


@dataclass(frozen=True)
class Evaluation:
    """What `rayclean evaluate` prints."""

    rows: int
    true_noise_rate: float
    estimated_noise_rate: float
    scores: dict[str, ScoreQuality]
    label_score: dict[str, float]
    predicted_right: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def read_truth(catalog: Catalog) -> Array:
    """(N,) int64 true labels, -1 where unknown. Only benchmarks have them; no scoring code reads them."""
    parts = []
    for shard, rows in enumerate(catalog.shards["rows"].to_pylist()):
        table = catalog.truth_of_shard(shard)
        truth = np.full(rows, UNKNOWN, np.int64)
        if table is not None:
            truth[table["index_in_shard"].to_numpy()] = table["label"].fill_null(UNKNOWN).to_numpy()
        parts.append(truth)
    return np.concatenate(parts)


def auroc(scores: Array, clean: Array) -> float:
    """AUROC over the rows whose score is defined."""
    defined, their_clean, _ = metrics.defined_only(scores, clean)
    return metrics.auroc(defined, their_clean)


def _quality(curve: dict[int, float]) -> ScoreQuality:
    best = max(curve, key=lambda epoch: (curve[epoch], -epoch))
    return ScoreQuality(curve, curve[best], best, curve[max(curve)])


def trajectory_curves(
    store: Store, folder: str, epochs: int, block_rows: int, known: Array, clean: Array
) -> dict[str, dict[int, float]]:
    """AUROC of each trajectory score as of each epoch."""
    blocks = num_blocks(len(known), block_rows)
    running = RunningTrajectory(len(known))
    curves: dict[str, dict[int, float]] = {}
    for epoch in range(1, epochs + 1):
        pieces = [read_trajectory(store, folder, epoch, block) for block in range(blocks)]
        running.add(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
        for name, scores in running.scores().items():
            curves.setdefault(name, {})[epoch] = auroc(scores[known], clean)
    return curves


def interpolation_curves(
    store: Store, folders: dict[int, str], blocks: int, known: Array, clean: Array
) -> dict[str, dict[int, float]]:
    """AUROC of `iofm_last` and of `iofm`, the mean up to then, at each snapshot."""
    total = np.zeros(len(known))
    curves: dict[str, dict[int, float]] = {"iofm": {}, "iofm_last": {}}
    for count, (epoch, folder) in enumerate(folders.items(), start=1):
        names = [f"{folder}/{block_name(block)}.safetensors" for block in range(blocks)]
        scores = np.concatenate([map_arrays(store, name)["score"] for name in names])
        total += scores
        curves["iofm_last"][epoch] = auroc(scores[known], clean)
        curves["iofm"][epoch] = auroc(total[known] / count, clean)
    return curves


def evaluate(
    files: ScoreFiles,
    train_folder: str,
    epochs: int,
    snapshot_epochs: tuple[int, ...],
    labels: Array,
    noise_rate: float,
    threshold: float,
) -> Evaluation:
    """Compares every score, and the table, with the truth.

    Args:
        files: the run's scores.
        train_folder: of role `main`.
        epochs: epochs with trajectories.
        snapshot_epochs: epochs of `files.interpolate_folders`.
        labels: (N,) true labels, -1 where unknown.
        noise_rate: estimated by the merge.
        threshold: `merge.threshold`.
    """
    catalog, store = files.catalog, files.catalog.store
    known = labels != UNKNOWN
    clean = catalog.label[known] == labels[known]
    block_rows = files.embedding.block_rows
    blocks = num_blocks(catalog.num_rows, block_rows)
    curves = trajectory_curves(store, train_folder, epochs, block_rows, known, clean)
    if files.interpolate_folders:
        folders = dict(zip(snapshot_epochs, files.interpolate_folders, strict=True))
        curves |= interpolation_curves(store, folders, blocks, known, clean)
    last = [files.read(block) for block in range(blocks)]
    for name in files.names:
        final = np.concatenate([block.scores[name] for block in last])
        curves.setdefault(name, {snapshot_epochs[-1]: auroc(final[known], clean)})
    table = _read_labels(store)
    probability, predicted = table["label_score"][known], table["predicted_label"][known]
    flags = flag_metrics(probability, clean, threshold)
    calibration = expected_calibration_error(probability, clean)
    right = predicted == labels[known]
    return Evaluation(
        rows=int(known.sum()),
        true_noise_rate=float(1 - clean.mean()),
        estimated_noise_rate=noise_rate,
        scores={name: _quality(curves[name]) for name in files.names},
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
    )


def _read_labels(store: Store) -> dict[str, Array]:
    parts = [name for name in store.list("labels") if name.startswith("part-")]
    columns = ["label_score", "predicted_label"]
    tables = [read_table(store, f"labels/{name}", columns) for name in parts]
    return {name: np.concatenate([table[name].to_numpy() for table in tables]) for name in columns}
