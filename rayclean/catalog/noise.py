"""Wrong labels made on purpose, for benchmarks; class imbalance comes first (`imbalance.py`; methods.md, section 9).

Every draw for a sample is a hash of (seed, salt, draw id): another order or sharding of the same samples gets the
same labels, and a block of rows needs nothing of the others. Rows of equal draw id (equal key and pixels) are drawn
alike. A row is wrong where given != true, not where a flip was drawn.
Where a source replaces an exact number of labels (DivideMix, RoG), each row is drawn with its probability, as in INN.

Here is what all kinds share; which there are stands in `rayclean.config.noise_kinds`. Letters: N rows, K classes,
S pixels per side; r = rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayclean.config.noise_kinds import NOISE_KINDS, NoiseKind
from rayclean.errors import ConfigError
from rayclean.storage.draws import UInt64, uniform

Ints = NDArray[np.integer]
Int32 = NDArray[np.int32]
Floats = NDArray[np.floating]
Float64 = NDArray[np.float64]

# One salt per purpose, so that which rows flip, to what, and how likely each flips are independent.
FLIP_SALT, LABEL_SALT, THRESHOLD_SALT = "noise.flip", "noise.label", "noise.threshold"


@dataclass(frozen=True)
class NoiseRows:
    """What a kind of noise makes labels for: N rows. Of `rate`, `rates` and `matrix` one is set, as the kind reads.

    Attributes:
        truth: (N,) true labels, 0..K-1.
        draw_ids: (N,) uint64 identities of the samples.
        num_classes: K, at least 2.
        seed: any integer (`run.seed`).
        rate: r in [0, 1].
        rates: (K,) in [0, 1], by true class.
        matrix: (K, K) P(given | true), one row per true class, each summing to 1.
        images: (N, S, S, 3) uint8 for kinds that read images, else None.
    """

    truth: Ints
    draw_ids: UInt64
    num_classes: int
    seed: int
    rate: float | None = None
    rates: Floats | None = None
    matrix: Floats | None = None
    images: NDArray[np.uint8] | None = None

    @property
    def one_rate(self) -> float:
        """`rate`, for kinds that have no other setting."""
        assert self.rate is not None  # check_noise lets none through
        return self.rate


def make_labels(kind: NoiseKind, rows: NoiseRows) -> Int32:
    """Return the given labels of rows, (N,) int32.

    Raises:
        ConfigError: the settings cannot be right, or the kind gives what are no labels.
        ValueError: a true label is out of range, or the shapes do not fit.
    """
    check_settings(kind, rows.num_classes, rows.rate, rows.rates, rows.matrix)
    check_rows(rows.truth, rows.draw_ids, rows.num_classes)
    found = np.asarray(kind.load()(rows))
    fits = found.shape == rows.truth.shape and np.issubdtype(found.dtype, np.integer)
    valid = fits and bool(((found >= 0) & (found < rows.num_classes)).all())
    described = f"{kind.name} giving {found.dtype} of shape {found.shape}"
    expected = f"whole numbers 0..{rows.num_classes - 1} of shape {rows.truth.shape}"
    require(valid, "noise.kind", described, expected)
    return found.astype(np.int32)


def check_noise(
    kind: str, num_classes: int, rate: float | None, *, matrix: Floats | None = None, rates: Floats | None = None
) -> None:
    """Refuse settings that cannot be right.

    Raises:
        ConfigError: names the field (`noise.rate`, ...), what was found and what is expected.
    """
    check_settings(NOISE_KINDS.get(kind), num_classes, rate, rates, matrix)


def check_settings(
    kind: NoiseKind, num_classes: int, rate: float | None, rates: Floats | None, matrix: Floats | None
) -> None:
    """As `check_noise`, of a kind itself."""
    found = f"{kind.name} with {num_classes} class(es)"
    require(num_classes >= 2, "noise.kind", found, "2 classes or more")
    require(kind.num_classes in (None, num_classes), "noise.kind", found, f"{kind.num_classes} classes")
    given = {name: value for name, value in (("rate", rate), ("rates", rates), ("matrix", matrix)) if value is not None}
    read = " or ".join(f"noise.{name}" for name in kind.settings) or "no setting"
    for name in given:
        require(name in kind.settings, f"noise.{name}", f"one for noise.kind {kind.name}", f"{read} alone")
    require(len(given) < 2, "noise", f"{' and '.join(given)} for noise.kind {kind.name}", f"{read} alone")
    asked = (*given, *kind.settings)[:1]  # where none is given, that says so
    if "rate" in asked:
        require(rate is not None and 0 <= rate <= 1, "noise.rate", str(rate), "a number in [0, 1]")
    if "rates" in asked:
        _check_rates(np.zeros(0) if rates is None else rates, num_classes)
    if "matrix" in asked:
        _check_matrix(np.zeros((0, 0)) if matrix is None else matrix, num_classes)


def _check_rates(rates: Floats, num_classes: int) -> None:
    shape = (num_classes,)
    require(rates.shape == shape, "noise.rates", f"shape {rates.shape}", f"one rate per class, {shape}")
    valid = bool(((rates >= 0) & (rates <= 1)).all())
    require(valid, "noise.rates", f"{rates.min()} to {rates.max()}", "rates in [0, 1]")


def _check_matrix(matrix: Floats, num_classes: int) -> None:
    shape = (num_classes, num_classes)
    require(matrix.shape == shape, "noise.matrix", f"shape {matrix.shape}", f"P(given | true), {shape}")
    off = np.where((matrix >= 0).all(axis=1), np.abs(matrix.sum(axis=1) - 1), 1.0)
    worst = int(off.argmax())
    found = f"row {worst} with sum {matrix[worst].sum():g} and least entry {matrix[worst].min():g}"
    require(off[worst] <= 1e-6, "noise.matrix", found, "rows of probabilities that sum to 1")


def require(holds: bool, field: str, found: str, expected: str) -> None:
    """Raises a ConfigError that names the field unless something holds."""
    if not holds:
        raise ConfigError(f"{field}: found {found}, expected {expected}")


def check_rows(truth: Ints, draw_ids: UInt64, num_classes: int) -> None:
    """Raises a ValueError for labels out of range, or not one per draw id."""
    if truth.ndim != 1 or draw_ids.shape != truth.shape:
        raise ValueError(f"truth (N,) and draw ids (N,) expected, found {truth.shape} and {draw_ids.shape}")
    if len(truth) and not (truth.min() >= 0 and truth.max() < num_classes):
        raise ValueError(f"true labels {truth.min()}..{truth.max()} found, 0..{num_classes - 1} expected")


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
    """`make_labels` by a kind's name, of kinds that read no image; arguments as the fields of `NoiseRows`.

    Raises:
        ConfigError: the settings cannot be right.
        ValueError: a true label is out of range, or the shapes do not fit.
    """
    found = NOISE_KINDS.get(kind)
    require(not found.reads_images, "noise.kind", kind, "a kind that reads no image")
    return make_labels(found, NoiseRows(truth, draw_ids, num_classes, seed, rate, rates, matrix))


def flip(rows: NoiseRows, rates: float | Floats, targets: Callable[[Ints, Float64, int], Ints]) -> Int32:
    """Return (N,) int32 labels, where a row drawn to flip gets another target, and all others stay.

    For one seed, the rows that flip at a rate are among those that flip at a higher one, and to the same labels.

    Args:
        rows: N rows.
        rates: the probability that a row is drawn, for all or (N,).
        targets: from (N,) true labels, (N,) draws in [0, 1) and K to (N,) labels.
    """
    which = uniform(rows.seed, LABEL_SALT, rows.draw_ids)
    flips = drawn_to_flip(rows.draw_ids, rates, rows.seed)
    return np.where(flips, targets(rows.truth, which, rows.num_classes), rows.truth).astype(np.int32)


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


def cumulative(probabilities: Floats) -> Float64:
    """Sums along the last axis that end at exactly 1, so that no draw lies above them."""
    sums = np.cumsum(probabilities, axis=-1, dtype=np.float64)
    return np.asarray(sums / sums[..., -1:], dtype=np.float64)
