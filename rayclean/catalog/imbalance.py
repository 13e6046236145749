"""Class imbalance made on purpose: which rows of each true class stay (methods.md, section 9).

Done before the labels are made wrong (`noise.py`). Which rows stay is drawn by a hash of (seed, salt, draw id), as
there. Letters: N rows, K classes; f = 1 / ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rayclean.catalog.noise import check_rows, require
from rayclean.config.noise_kinds import IMBALANCES, Imbalance
from rayclean.storage.draws import UInt64, seeded_hash

Ints = NDArray[np.integer]
Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]

NONE = "none"  # no imbalance
SALT = "noise.imbalance"
KEEP_NONE, KEEP_ALL = np.uint64(0), np.uint64(2**63)  # a hash of 63 bits is in [0, 2^63)


def class_targets(kind: str, counts: Ints, ratio: float, classes: Sequence[int] | None = None) -> NDArray[np.int64]:
    """`targets_of` by an imbalance's name; all rows for `none`."""
    if kind == NONE:
        require(classes is None, "noise.classes", f"{classes} without noise.imbalance", _picking())
        return counts.astype(np.int64)
    return targets_of(IMBALANCES.get(kind), counts, ratio, classes)


def targets_of(
    imbalance: Imbalance, counts: Ints, ratio: float, classes: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Return how many rows of each **true** class stay, (K,) int64, at most `counts`.

    Rounded down, as int() in LDAM's code, but of a class that keeps any row and is not empty one stays at least [our
    choice].

    Args:
        imbalance: which.
        counts: (K,) rows of each true class.
        ratio: largest / smallest class, 1/f, at least 1.
        classes: [a, b] where the imbalance picks classes, else None.

    Raises:
        ConfigError: `noise.ratio` or `noise.classes` cannot be right.
    """
    require(math.isfinite(ratio) and ratio >= 1, "noise.ratio", str(ratio), "largest / smallest class, 1 or more")
    if imbalance.picks_classes:
        _check_pair(classes, counts)
    else:
        require(classes is None, "noise.classes", f"{classes} for noise.imbalance {imbalance.name}", _picking())
    wanted = np.asarray(imbalance.load()(counts.astype(np.float64), ratio, classes), np.float64)
    valid = wanted.shape == counts.shape and bool((wanted >= 0).all())
    found = f"{imbalance.name} asking for {wanted.tolist()} rows"
    require(valid, "noise.imbalance", found, f"numbers of shape {counts.shape}, 0 or more")
    kept = np.where(wanted > 0, np.maximum(wanted, 1), 0)
    return np.minimum(kept, counts).astype(np.int64)


def _picking() -> str:
    return f"noise.imbalance {' or '.join(each.name for each in IMBALANCES if each.picks_classes)}"


def _check_pair(classes: Sequence[int] | None, counts: Ints) -> None:
    labels = list(classes or [])
    valid = len(set(labels)) == len(labels) == 2 and all(0 <= label < len(counts) for label in labels)
    require(valid, "noise.classes", str(labels), f"[a, b], two different labels in 0..{len(counts) - 1}")
    for label in labels:
        require(counts[label] > 0, "noise.classes", f"{labels}, and class {label} has no row", "classes with rows")


# Divided by ratio^power, not multiplied by f^power: exact where the ratio divides n_0, the largest count, which is
# LDAM's n/K where classes are balanced. A class with fewer rows than its target keeps what it has.


def long_tail(counts: Float64, ratio: float, classes: Sequence[int] | None) -> Float64:
    """Return n_k = n_0 f^(k/(K-1)) [LDAM]."""
    return np.asarray(counts.max(initial=0) / ratio ** (np.arange(len(counts)) / max(len(counts) - 1, 1)))


def step(counts: Float64, ratio: float, classes: Sequence[int] | None) -> Float64:
    """Return n_0 for the first K//2 classes, n_0 f for the rest [LDAM]."""
    return np.asarray(counts.max(initial=0) / np.where(np.arange(len(counts)) < len(counts) // 2, 1.0, ratio))


def two_class(counts: Float64, ratio: float, classes: Sequence[int]) -> Float64:
    """Return all of class a, f of class b, no other [INN, 4.4; its pairs count from 1, ours from 0]."""
    first, second = classes
    wanted = np.zeros(len(counts))
    wanted[[first, second]] = counts[first], counts[second] / ratio
    return wanted


def keep_thresholds(truth: Ints, draw_ids: UInt64, targets: Ints, seed: int) -> UInt64:
    """Return (K,) uint64 thresholds for `is_kept`, by which the n_k rows with the smallest hashes stay.

    Exclusive: a row stays where its hash of 63 bits is below its class's threshold. So KEEP_NONE (0) keeps no row and
    KEEP_ALL (2^63) every row, which a class gets that has no more rows than its target. Rows of equal draw id stay
    or go together, so a few more may stay. For one seed, what stays at a target also stays at a larger one. Needs
    all rows at once, some 30 bytes each.

    Args:
        truth: (N,) true labels, 0..K-1.
        draw_ids: (N,) uint64 identities of the samples.
        targets: (K,) n_k, rows of each class to keep.
        seed: any integer (`run.seed`).
    """
    check_rows(truth, draw_ids, len(targets))
    counts = np.bincount(truth, minlength=len(targets))
    stops = np.cumsum(counts)
    thresholds = np.where(targets > 0, KEEP_ALL, KEEP_NONE)
    hashes = _keep_hashes(draw_ids, seed)[np.argsort(truth, kind="stable")]
    for label in np.flatnonzero((targets > 0) & (targets < counts)):
        of_class = hashes[stops[label] - counts[label] : stops[label]]
        last = targets[label] - 1
        thresholds[label] = np.partition(of_class, last)[last] + np.uint64(1)
    return thresholds


def is_kept(truth: Ints, draw_ids: UInt64, thresholds: UInt64, seed: int) -> NDArray[np.bool_]:
    """Mark the rows of a block that stay, (N,) bool; `thresholds` (K,) from `keep_thresholds` with the same seed."""
    check_rows(truth, draw_ids, len(thresholds))
    return np.asarray(_keep_hashes(draw_ids, seed) < thresholds[truth])


def _keep_hashes(draw_ids: UInt64, seed: int) -> UInt64:
    return seeded_hash(seed, SALT, draw_ids) >> np.uint64(1)


def relabel(truth: Ints, classes: Sequence[int]) -> Int32:
    """Return (N,) int32 labels of `two_class`'s kept rows: 0 for class a, 1 for class b; K is 2 from then on.

    Raises:
        ValueError: a row is of neither class of [a, b].
    """
    first, second = classes
    strangers = int(((truth != first) & (truth != second)).sum())
    if strangers:
        raise ValueError(f"{strangers} of {len(truth)} rows are neither of class {first} nor of class {second}")
    return np.asarray(truth == second).astype(np.int32)
