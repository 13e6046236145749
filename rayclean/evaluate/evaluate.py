"""How good each score is, where the truth is known: AUROC per epoch and snapshot, best and final, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.evaluate import metrics
from rayclean.evaluate.curves import Curve, point, score_curves
from rayclean.evaluate.metrics import average_precision, expected_calibration_error, flag_metrics
from rayclean.evaluate.noise_words import noise_interval
from rayclean.evaluate.simulated import SimulatedLosses
from rayclean.schema import UNKNOWN, Array
from rayclean.scores.table import ScoreFiles
from rayclean.storage.published import CLIPS, PART, Published
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks


@dataclass(frozen=True)
class ScoreQuality:
    """AUROC of one score; clean is the positive class.

    Attributes:
        curve: epoch -> AUROC of the score as of that epoch.
        best: the highest of the curve (needs the truth: for benchmarks only).
        final: of the score as the table has it: that of the last epoch, for ODD of its own.
        average_precision: of finding the wrong labels, by the score as the table has it.
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
        simulated: losses beside simulated ones, of ODD's role and of role `plant`; empty where there are none.
        estimated_interval: of `estimated_noise_rate`; None where the merge gives none.
        clips: AUROC over clips of each score and of `label_score`; empty where images stand alone.
    """

    rows: int
    true_noise_rate: float
    estimated_noise_rate: float
    estimated_interval: tuple[float, float] | None
    scores: dict[str, ScoreQuality]
    label_score: dict[str, float]
    predicted_right: dict[str, float]
    reliability: list[Bin]
    simulated: list[SimulatedLosses]
    clips: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def truth_by_shard(catalog: Catalog) -> Iterator[tuple[slice, Array]]:
    """Rows and true labels (as in `read_truth`) of each shard. Only benchmarks have them; no score reads them."""
    columns = (catalog.shards[name].to_pylist() for name in ("first_row", "rows"))
    for shard, (first, rows) in enumerate(zip(*columns, strict=True)):
        table = catalog.truth_of_shard(shard)
        truth = np.full(rows, UNKNOWN, np.int64)
        if table is not None:
            truth[table["index_in_shard"].to_numpy()] = table["label"].fill_null(UNKNOWN).to_numpy()
        yield slice(first, first + rows), truth


def read_truth(catalog: Catalog) -> Array:
    """(N,) int64 true labels: `NONE_OF_CLASSES` where no class fits, `UNKNOWN` where nothing is known."""
    return np.concatenate([truth for _, truth in truth_by_shard(catalog)])


def auroc(scores: Array, clean: Array) -> float:
    """AUROC over the rows whose score is defined."""
    defined, their_clean, _ = metrics.defined_only(scores, clean)
    return metrics.auroc(defined, their_clean)


def _quality(curve: Curve, final: Array, clean: Array) -> ScoreQuality:
    areas = {epoch: at.auroc for epoch, at in curve.items()}
    best = max(areas, key=lambda epoch: (areas[epoch], -epoch))
    defined, their_clean, _ = metrics.defined_only(final, clean)
    return ScoreQuality(
        areas,
        areas[best],
        best,
        metrics.auroc(defined, their_clean),
        average_precision(defined, their_clean),
        {epoch: at.mean_clean for epoch, at in curve.items()},
        {epoch: at.mean_wrong for epoch, at in curve.items()},
    )


def evaluate(
    files: ScoreFiles,
    last: int,
    labels: Array,
    summary: Mapping[str, Any],
    threshold: float,
    simulated: Sequence[SimulatedLosses] = (),
) -> Evaluation:
    """Compares every score, and the table, with the truth.

    Args:
        files: the run's scores.
        last: epoch of role `main`'s last snapshot.
        labels: (N,) true labels, see `read_truth`.
        summary: of the table, with the noise rate that the merge estimates.
        threshold: `merge.threshold`.
        simulated: histograms to keep beside the figures.
    """
    catalog, store = files.catalog, files.catalog.store
    known = labels != UNKNOWN
    clean = catalog.label[known] == labels[known]
    curves = score_curves(files, known, clean)
    blocks = [files.read(block) for block in range(num_blocks(catalog.num_rows, files.block_rows))]
    final = {name: np.concatenate([block.scores[name] for block in blocks])[known] for name in files.names}
    for name, scores in final.items():
        curves.setdefault(name, {last: point(scores, clean)})
    table = _read_labels(store, PART, ["label_score", "predicted_label"])
    probability, predicted = table["label_score"][known], table["predicted_label"][known]
    flags = flag_metrics(probability, clean, threshold)
    calibration = expected_calibration_error(probability, clean)
    right = predicted == labels[known]
    return Evaluation(
        rows=int(known.sum()),
        true_noise_rate=float(1 - clean.mean()),
        estimated_noise_rate=summary["noise_rate"],
        estimated_interval=noise_interval(summary),
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
        simulated=list(simulated),
        clips=_clips(store, files.names, labels) if catalog.has_clips else {},
    )


def _clips(store: Store, names: Sequence[str], labels: Array) -> dict[str, float]:
    """AUROC over the clips whose first frame has a truth."""
    columns = {"label_score": "label_score", **{name: f"score_{name}" for name in names}}
    table = _read_labels(store, CLIPS, ["first_row", "given_label", *columns.values()])
    truth = labels[table["first_row"]]
    known = truth != UNKNOWN
    clean = table["given_label"][known] == truth[known]
    return {name: auroc(table[column][known], clean) for name, column in columns.items()}


def _reliability(calibration: metrics.Calibration) -> list[Bin]:
    columns = calibration.num_rows.tolist(), calibration.mean_probability.tolist(), calibration.clean_share.tolist()
    return [Bin(*each) for each in zip(*columns, strict=True) if each[0]]


def _read_labels(store: Store, kind: str, columns: list[str]) -> dict[str, Array]:
    """Columns of the published table, of rows or of clips."""
    published = Published.open(store)
    tables = [published.read(path, columns) for path in published.of_kind(kind)]
    return {name: np.concatenate([table[name].to_numpy() for table in tables]) for name in columns}
