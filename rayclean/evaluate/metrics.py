"""How good scores and probabilities are where the truth is known.

Clean (the given label is right) is the positive class of AUROC; wrong labels are what the average precision,
and precision and recall of the flagged rows, are about. A score that is not defined (NaN) is refused: leave
such rows out with `defined_only`, which counts them.

Letters: N rows, B bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FlagMetrics:
    """How the flagged rows meet the wrong labels; a ratio without rows below its line is NaN."""

    num_flagged: int
    num_wrong: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and its reliability curve, over B bins of equal width."""

    error: float
    mean_probability: NDArray[np.float64]  # (B,) NaN in an empty bin
    clean_share: NDArray[np.float64]  # (B,) NaN in an empty bin
    num_rows: NDArray[np.int64]  # (B,)


def defined_only(scores: Floats, clean: Bools) -> tuple[Floats, Bools, int]:
    """Return scores and clean without the rows whose score is NaN, and how many these were."""
    defined = ~np.isnan(scores)
    return scores[defined], clean[defined], int((~defined).sum())


def auroc(scores: Floats, clean: Bools) -> float:
    """Return P(score of a clean row > score of a wrong row), ties counted half.

    Args:
        scores: (N,) higher = cleaner; may be infinite.
        clean: (N,) whether the given label is right.

    Returns:
        In [0, 1]; NaN where all rows are clean or all are wrong.

    Raises:
        ValueError: a score is NaN, or the shapes differ.
    """
    _check(scores, clean)
    num_clean = int(clean.sum())
    num_wrong = len(clean) - num_clean
    if not num_clean or not num_wrong:
        return math.nan
    rank_sum = float(rankdata(scores)[clean].sum())
    return (rank_sum - num_clean * (num_clean + 1) / 2) / (num_clean * num_wrong)


def average_precision(scores: Floats, clean: Bools) -> float:
    """Return the average precision of finding wrong labels from the lowest score up.

    Args:
        scores: (N,) higher = cleaner; may be infinite.
        clean: (N,) whether the given label is right.

    Returns:
        In (0, 1]; NaN where no label is wrong.

    Raises:
        ValueError: a score is NaN, or the shapes differ.
    """
    _check(scores, clean)
    if clean.all():
        return math.nan
    suspicion = -rankdata(scores, method="dense")  # ranks, as scikit-learn refuses infinite scores
    return float(average_precision_score(~clean, suspicion))


def flag_metrics(probabilities: Floats, clean: Bools, threshold: float = 0.5) -> FlagMetrics:
    """Return precision, recall and F1 of the rows with P(label right) < threshold (`is_label_issue`).

    Args:
        probabilities: (N,) P(label right).
        clean: (N,) whether the given label is right.
        threshold: `merge.threshold`.

    Raises:
        ValueError: a probability is NaN, or the shapes differ.
    """
    _check(probabilities, clean)
    flagged = probabilities < threshold
    num_flagged, num_wrong = int(flagged.sum()), int((~clean).sum())
    num_found = int((flagged & ~clean).sum())
    return FlagMetrics(
        num_flagged=num_flagged,
        num_wrong=num_wrong,
        precision=_ratio(num_found, num_flagged),
        recall=_ratio(num_found, num_wrong),
        f1=_ratio(2 * num_found, num_flagged + num_wrong),
    )


def expected_calibration_error(probabilities: Floats, clean: Bools, num_bins: int = 15) -> Calibration:
    """Return the mean gap between stated probability and share of right labels (Guo et al., 2017, Eq. 3).

    error = sum over bins of (rows of the bin / N) * |share clean - mean probability|; bin b is
    [b/B, (b+1)/B), the last one with its end.

    Args:
        probabilities: (N,) P(label right) in [0, 1].
        clean: (N,) whether the given label is right.
        num_bins: B.

    Raises:
        ValueError: a probability is NaN or outside [0, 1], or the shapes differ.
    """
    _check(probabilities, clean)
    stated = probabilities.astype(np.float64)
    if ((stated < 0.0) | (stated > 1.0)).any():
        raise ValueError(f"probabilities in [0, 1] expected, found {stated.min()} to {stated.max()}")
    bins = np.minimum((stated * num_bins).astype(np.int64), num_bins - 1)
    num_rows = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_probability = np.bincount(bins, weights=stated, minlength=num_bins) / num_rows
        clean_share = np.bincount(bins, weights=clean, minlength=num_bins) / num_rows
    gaps = np.abs(clean_share - mean_probability)
    error = float(np.nansum(gaps * num_rows) / len(stated)) if len(stated) else math.nan
    return Calibration(error, mean_probability, clean_share, num_rows)


def _check(scores: Floats, clean: Bools) -> None:
    if scores.ndim != 1 or scores.shape != clean.shape:
        raise ValueError(f"scores (N,) and clean (N,) expected, found {scores.shape} and {clean.shape}")
    num_undefined = int(np.isnan(scores).sum())
    if num_undefined:
        raise ValueError(f"{num_undefined} of {len(scores)} scores are NaN: leave them out with defined_only")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
