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
from rayclean.storage.draws import UInt64, seeded_hash

Ints = NDArray[np.integer]
Int32 = NDArray[np.int32]

KINDS = ("none", "long_tail", "step", "two_class")
SALT = "noise.imbalance"
KEEP_NONE, KEEP_ALL = np.uint64(0), np.uint64(2**63)  # a hash of 63 bits is in [0, 2^63)


def class_targets(kind: str, counts: Ints, ratio: float, classes: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Return how many rows of each **true** class stay, (K,) int64, at most `counts`.

    `none`: all. `long_tail`: n_k = n_0 f^(k/(K-1)) [LDAM]. `step`: n_0 for the first K//2 classes, n_0 f for the
    rest [LDAM]. `two_class`: all of class a, f of class b, no other [INN, 4.4; its pairs count from 1, ours from 0].
    n_0 is the largest count, which is LDAM's n/K where classes are balanced; a class with fewer rows than its target
    keeps what it has. Rounded down, as int() in LDAM's code, but what is not empty keeps a row [our choice].

    Args:
        kind: one of KINDS.
        counts: (K,) rows of each true class.
        ratio: largest / smallest class, 1/f, at least 1; not read by `none`.
        classes: [a, b] for `two_class`, else None.

    Raises:
        ConfigError: `noise.imbalance`, `noise.ratio` or `noise.classes` cannot be right.
    """
    require(kind in KINDS, "noise.imbalance", repr(kind), f"one of {', '.join(KINDS)}")
    if kind != "none":
        require(math.isfinite(ratio) and ratio >= 1, "noise.ratio", str(ratio), "largest / smallest class, 1 or more")
    num_classes = len(counts)
    whole = counts.astype(np.float64)
    # Divided by ratio^power, not multiplied by f^power: exact where the ratio divides n_0.
    if kind == "two_class":
        first, second = _checked_pair(classes, counts)
        wanted = np.zeros(num_classes)
        wanted[[first, second]] = whole[first], max(whole[second] / ratio, 1)
        return wanted.astype(np.int64)
    require(classes is None, "noise.classes", f"{classes} for noise.imbalance {kind}", "noise.imbalance two_class")
    if kind == "step":
        wanted = whole.max(initial=0) / np.where(np.arange(num_classes) < num_classes // 2, 1.0, ratio)
    elif kind == "long_tail":
        wanted = whole.max(initial=0) / ratio ** (np.arange(num_classes) / max(num_classes - 1, 1))
    else:
        wanted = whole
    return np.minimum(np.maximum(wanted.astype(np.int64), 1), counts.astype(np.int64))


def _checked_pair(classes: Sequence[int] | None, counts: Ints) -> tuple[int, int]:
    labels = list(classes or [])
    valid = len(set(labels)) == len(labels) == 2 and all(0 <= label < len(counts) for label in labels)
    require(valid, "noise.classes", str(labels), f"[a, b], two different labels in 0..{len(counts) - 1}")
    for label in labels:
        require(counts[label] > 0, "noise.classes", f"{labels}, and class {label} has no row", "classes with rows")
    return labels[0], labels[1]


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
