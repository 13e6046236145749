"""Wrong labels made on purpose, for benchmarks; class imbalance comes first (`imbalance.py`; methods.md, section 9).

Every draw for a sample is a hash of (seed, salt, draw id): another order or sharding of the same samples gets the
same labels, and a block of rows needs nothing of the others. Rows of equal draw id (equal key and pixels) are drawn
alike. A row is wrong where given != true, not where a flip was drawn.
Where a source replaces an exact number of labels (DivideMix, RoG), each row is drawn with its probability, as in INN.

Letters: N rows, K classes, S pixels a side, d = 3 S^2 numbers an image; r = rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, softmax

from rayclean.errors import ConfigError
from rayclean.storage.draws import UInt64, seeded_hash, uniform

Ints = NDArray[np.integer]
Int32 = NDArray[np.int32]
Floats = NDArray[np.floating]
Float64 = NDArray[np.float64]

FLIP_KINDS = ("symmetric", "symmetric_exclusive", "asymmetric_cifar10", "next_class", "matrix", "per_class")
NOISE_KINDS = (*FLIP_KINDS, "instance")

# One salt a purpose, so that which rows flip, to what, and how likely each flips are independent.
FLIP_SALT, LABEL_SALT, RATE_SALT = "noise.flip", "noise.label", "noise.rate"
PROJECTION_SALT, THRESHOLD_SALT = "noise.projection", "noise.threshold"

# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog; the other five classes stay.
CIFAR10_TARGETS = np.array([0, 1, 0, 5, 7, 3, 6, 7, 8, 1])
RATE_STD = 0.1  # of the flip rates of `instance` [Xia et al.]
IMAGES_AT_ONCE = 64  # 77 MB of float64 at 224 pixels


def check_noise(
    kind: str, num_classes: int, rate: float | None, *, matrix: Floats | None = None, rates: Floats | None = None
) -> None:
    """Refuse settings that cannot be right; what `flip_labels` and `instance_labels` ask for.

    Raises:
        ConfigError: names the field (`noise.rate`, ...), what was found and what is expected.
    """
    require(kind in NOISE_KINDS, "noise.kind", repr(kind), f"one of {', '.join(NOISE_KINDS)}")
    found = f"{kind} with {num_classes} class(es)"
    require(num_classes >= 2, "noise.kind", found, "2 classes or more")
    require(kind != "asymmetric_cifar10" or num_classes == 10, "noise.kind", found, "the 10 classes of CIFAR-10")
    require(matrix is None or kind == "matrix", "noise.matrix", f"one for noise.kind {kind}", "noise.kind matrix")
    require(rates is None or kind == "per_class", "noise.rates", f"some for noise.kind {kind}", "noise.kind per_class")
    if kind == "matrix" or rates is not None:
        require(rate is None, "noise.rate", f"{rate} beside a matrix or rates", "one of the two")
    else:
        require(rate is not None and 0 <= rate <= 1, "noise.rate", str(rate), "a number in [0, 1]")
    if rates is not None:
        require(
            rates.shape == (num_classes,), "noise.rates", f"shape {rates.shape}", f"a rate a class, ({num_classes},)"
        )
        valid = bool(((rates >= 0) & (rates <= 1)).all())
        require(valid, "noise.rates", f"{rates.min()} to {rates.max()}", "rates in [0, 1]")
    if kind == "matrix":
        table = np.zeros((0, 0)) if matrix is None else matrix
        shape = (num_classes, num_classes)
        require(table.shape == shape, "noise.matrix", f"shape {table.shape}", f"P(given | true), {shape}")
        off = np.where((table >= 0).all(axis=1), np.abs(table.sum(axis=1) - 1), 1.0)
        worst = int(off.argmax())
        found = f"row {worst} with sum {table[worst].sum():g} and least entry {table[worst].min():g}"
        require(off[worst] <= 1e-6, "noise.matrix", found, "rows of probabilities that sum to 1")


def require(holds: bool, field: str, found: str, expected: str) -> None:
    """Raises a ConfigError that names the field unless something holds."""
    if not holds:
        raise ConfigError(f"{field}: found {found}, expected {expected}")


def check_rows(truth: Ints, draw_ids: UInt64, num_classes: int) -> None:
    """Raises a ValueError for labels out of range, or not one a draw id."""
    if truth.ndim != 1 or draw_ids.shape != truth.shape:
        raise ValueError(f"truth (N,) and draw ids (N,) expected, found {truth.shape} and {draw_ids.shape}")
    if len(truth) and not (truth.min() >= 0 and truth.max() < num_classes):
        raise ValueError(f"true labels {truth.min()}..{truth.max()} found, 0..{num_classes - 1} expected")


def class_rates(num_classes: int, rate: float) -> Float64:
    """Return (K,) rates of mean r that rise evenly with the class, as wide as [0, 1] allows [our choice].

    From 0 to 2r for r <= 1/2, from 2r - 1 to 1 above. With `long_tail` the rare classes are the noisy ones.
    """
    half_width = min(rate, 1 - rate)
    return np.linspace(rate - half_width, rate + half_width, num_classes)


def flip_labels(
    kind: str,
    truth: Ints,
    draw_ids: UInt64,
    num_classes: int,
    rate: float | None,
    seed: int,
    *,
    matrix: Floats | None = None,
    rates: Floats | None = None,
) -> Int32:
    """Return given labels whose noise depends on the true class alone.

    | kind | a row's label, with probability r | share of wrong labels |
    |---|---|---|
    | `symmetric` | uniform over all K, the true one included [INN, DivideMix] | r (K-1)/K |
    | `symmetric_exclusive` | uniform over the other K-1 [Influential Rank, Co-teaching] | r |
    | `asymmetric_cifar10` | 9->1, 2->0, 4->7, 3<->5; others stay [INN, DivideMix] | r/2 if balanced |
    | `next_class` | c -> c+1 mod K [INN on CIFAR-100; AUM's "flip"] | r |
    | `per_class` | uniform over the other K-1, r of the class [our reading of ODD] | mean r if balanced |

    and `matrix`: drawn from row y of P(given | true). For one seed, the rows that flip at a rate are among those
    that flip at a higher one, and to the same labels; not so for `matrix`.

    Args:
        kind: one of FLIP_KINDS.
        truth: (N,) true labels, 0..K-1.
        draw_ids: (N,) uint64 identities of the samples.
        num_classes: K, at least 2.
        rate: r in [0, 1]; None where `matrix` or `rates` is given.
        seed: any integer (`run.seed`).
        matrix: (K, K) for `matrix` only; a row a true class, summing to 1.
        rates: (K,) for `per_class` only; None takes `class_rates(K, r)`.

    Returns:
        (N,) int32.

    Raises:
        ConfigError: the settings cannot be right.
        ValueError: a true label is out of range, or the shapes do not fit.
    """
    require(kind != "instance", "noise.kind", kind, "a kind that reads no image; instance_labels does")
    check_noise(kind, num_classes, rate, matrix=matrix, rates=rates)
    check_rows(truth, draw_ids, num_classes)
    which = uniform(seed, LABEL_SALT, draw_ids)
    if matrix is not None:
        given = np.empty(len(truth), np.int32)
        for label in np.unique(truth):
            rows = truth == label
            given[rows] = np.searchsorted(_cumulative(matrix[label]), which[rows], side="right")
        return given
    if rates is None and rate is not None:
        rates = class_rates(num_classes, rate) if kind == "per_class" else np.full(num_classes, rate)
    assert rates is not None  # check_noise lets none through
    flips = drawn_to_flip(draw_ids, rates[truth], seed)
    return np.where(flips, _TARGETS[kind](truth, which, num_classes), truth).astype(np.int32)


def drawn_to_flip(draw_ids: UInt64, rates: float | Floats, seed: int) -> NDArray[np.bool_]:
    """Mark the rows whose label is drawn anew, (N,) bool; by `symmetric` some of them get the label that they had."""
    return np.asarray(uniform(seed, FLIP_SALT, draw_ids) < rates)


def threshold_samples(draw_ids: UInt64, num_classes: int, part: int, seed: int) -> NDArray[np.bool_]:
    """Mark the rows that get the class of threshold samples, (N,) bool: 1 in K + 1 [AUM].

    Args:
        draw_ids: (N,) uint64 identities of the samples.
        num_classes: K, without that class.
        part: which of the K + 1 disjoint sets; another covers the rows of the first.
        seed: any integer (`run.seed`).
    """
    place = uniform(seed, THRESHOLD_SALT, draw_ids) * (num_classes + 1)
    return np.asarray(place.astype(np.int64) == part)


def _any_class(truth: Ints, which: Float64, num_classes: int) -> Ints:
    return (which * num_classes).astype(np.int64)  # u K rounds to less than K for every double u < 1


def _other_class(truth: Ints, which: Float64, num_classes: int) -> Ints:
    other = _any_class(truth, which, num_classes - 1)
    return other + (other >= truth)


_TARGETS: dict[str, Callable[[Ints, Float64, int], Ints]] = {
    "symmetric": _any_class,
    "symmetric_exclusive": _other_class,
    "per_class": _other_class,
    "asymmetric_cifar10": lambda truth, _, __: CIFAR10_TARGETS[truth],
    "next_class": lambda truth, _, num_classes: (truth + 1) % num_classes,
}


def _cumulative(probabilities: Floats) -> Float64:
    """Sums along the last axis that end at exactly 1, so that no draw lies above them."""
    sums = np.cumsum(probabilities, axis=-1, dtype=np.float64)
    return np.asarray(sums / sums[..., -1:], dtype=np.float64)


def instance_labels(
    images: NDArray[np.uint8], truth: Ints, draw_ids: UInt64, num_classes: int, rate: float, seed: int
) -> Int32:
    """Return given labels whose noise depends on the image [Xia et al., NeurIPS 2020: their generator].

    Theirs: for each sample a flip rate q ~ N(r, .1^2) cut to [0, 1]; for each true class y a projection W_y (d x K)
    of independent N(0, 1) numbers; the label is y with probability 1 - q, else drawn from softmax(x W_y) over the
    other classes. The cut moves the mean of q near the ends: .080 at r = 0, .129 at .1, .206 at .2, .300 at .3.

    Ours: x = (pixel / 255 - 1/2) / (1/4), whatever the network's normalisation. Their code takes pixels 0..255, whose
    common mean sends most images of a class to the same wrong label. Logits still spread by about sqrt(d), so that
    an image has nearly one wrong label. Draws are hashes; W_y comes from (seed, y) alone, rounded to 2^-16, so that
    its product with whole numbers is exact and no block size or machine changes it. W_y is made for each class in
    the block, d K numbers: of large images hand in small copies, of the same size in all blocks.

    Args:
        images: (N, S, S, 3) uint8.
        truth: (N,) true labels, 0..K-1.
        draw_ids: (N,) uint64 identities of the samples.
        num_classes: K, at least 2.
        rate: r in [0, 1].
        seed: any integer (`run.seed`).

    Returns:
        (N,) int32.

    Raises:
        ConfigError: `noise.rate` or the number of classes cannot be right.
        ValueError: a true label is out of range, or the shapes do not fit.
    """
    check_noise("instance", num_classes, rate)
    check_rows(truth, draw_ids, num_classes)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(truth):
        raise ValueError(f"({len(truth)}, S, S, 3) uint8 images expected, found {images.shape} {images.dtype}")
    flips = uniform(seed, FLIP_SALT, draw_ids) < truncated_normal(uniform(seed, RATE_SALT, draw_ids), rate)
    which = uniform(seed, LABEL_SALT, draw_ids)
    given = truth.astype(np.int32)
    for label in np.unique(truth[flips]).tolist():
        weights = projection(seed, label, math.prod(images.shape[1:]), num_classes)
        rows = np.flatnonzero(flips & (truth == label))
        for first in range(0, len(rows), IMAGES_AT_ONCE):
            here = rows[first : first + IMAGES_AT_ONCE]
            # (p/255 - 1/2) / (1/4) = (2p - 255) / 127.5
            logits = (2.0 * images[here].reshape(len(here), -1) - 255.0) @ weights / 127.5
            logits[:, label] = -np.inf
            given[here] = (which[here, None] >= _cumulative(softmax(logits, axis=1))).sum(axis=1)
    return given


def truncated_normal(uniforms: Float64, rate: float) -> Float64:
    """Return flip rates: uniform draws through the inverse distribution function of N(rate, .1^2) cut to [0, 1]."""
    low, high = ndtr((0 - rate) / RATE_STD), ndtr((1 - rate) / RATE_STD)
    return np.clip(rate + RATE_STD * ndtri(low + uniforms * (high - low)), 0.0, 1.0)


def projection(seed: int, label: int, num_pixels: int, num_classes: int) -> Float64:
    """Return W_y of a true class: (d, K) float64 N(0, 1) numbers, rounded to multiples of 2^-16."""
    stream = seeded_hash(seed, PROJECTION_SALT, np.array([label], dtype=np.uint64))
    weights = np.random.Generator(np.random.PCG64(int(stream[0]))).standard_normal((num_pixels, num_classes))
    return np.asarray(np.round(weights * 2.0**16) / 2.0**16)
