"""Probabilities, features, images and keys as users pass them to LabelScorer: read, or refused with the next step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rayclean.embed.beliefs import softmax
from rayclean.errors import InputError
from rayclean.memory.arrays import as_items, check_finite, check_length, real_numbers, shown, stacked
from rayclean.memory.labels import read_labels
from rayclean.schema import Array

SUM_TOLERANCE = 1e-3  # a row of float16 probabilities sums to 1 within half of it

FAR = 64.0  # half ranges that the middle of a column may lie from 0
LARGEST = 1e30


class Given(NamedTuple):
    """Samples as they were given.

    Attributes:
        images: (N, S, S, 3) uint8.
        labels: (N,) int64, 0 .. K - 1.
        keys: N names.
        classes: K names.
    """

    images: Array
    labels: Array
    keys: list[str]
    classes: list[str]


def read_samples(
    images: object,
    labels: object,
    keys: object | None = None,
    num_classes: int | None = None,
    classes: object | None = None,
    of: str = "",
) -> Given:
    """Samples with images.

    Args:
        images: see `read_images`.
        labels: see `read_labels`; so are num_classes and classes.
        keys: see `read_keys`.
        num_classes: K.
        classes: names.
        of: what stands before the arguments' names in errors.

    Raises:
        InputError: something does not fit.
    """
    pixels = read_images(images, of)
    values, names = read_labels(labels, len(pixels), num_classes, classes, f"{of}labels")
    return Given(pixels, values, read_keys(keys, len(pixels)), names)


def read_verified_samples(verified: object, given: Given) -> Given:
    """Samples whose labels are known to be right.

    Args:
        verified: images and labels.
        given: the others, whose images are as large and whose classes are the same.

    Raises:
        InputError: something does not fit.
    """
    if not isinstance(verified, tuple | list) or len(verified) != 2:
        raise InputError(f"verified: (images, labels) expected, found {type(verified).__name__}")
    images, labels = verified
    known = read_samples(images, labels, classes=given.classes, of="verified ")
    expected, found = given.images.shape[1:], known.images.shape[1:]
    if found != expected:
        raise InputError(f"verified images: {expected} each expected as of the others, found {found}; resize them")
    return known


def read_probabilities(pred_probs: object, logits: bool = False) -> Array:
    """Probabilities of the classes; rows that sum to 1 but for rounding are divided by their sum.

    Args:
        pred_probs: (N, K), N > 0, K > 1: not negative, rows that sum to 1 within `SUM_TOLERANCE`; any finite numbers
            where `logits`.
        logits: whether they are logits, or logarithms of probabilities.

    Returns:
        (N, K) float64, rows that sum to 1.

    Raises:
        InputError: they are neither; it names the first row, and what to do.
    """
    values = real_numbers(pred_probs, "pred_probs")
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        columns = "[np.zeros_like(z), z]" if logits else "[1 - p, p]"
        raise InputError(
            f"pred_probs: (N, K) expected, one row per sample and one column per class, found {values.shape}; "
            f"what is of the second of two classes alone: np.column_stack({columns})"
        )
    check_finite(values, "pred_probs")
    with np.errstate(over="ignore", invalid="ignore"):  # logits may be as large as they like
        sums = values.sum(axis=1)
    are_probabilities = (values >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)
    if logits:
        if are_probabilities.all():
            warnings.warn("pred_probs: rows of probabilities found, but logits=True says logits", stacklevel=3)
        with np.errstate(over="ignore"):  # where they are farther apart than float64 holds, the smaller one becomes 0
            return softmax(values)
    if not are_probabilities.all():
        raise InputError(f"pred_probs: {_not_probabilities(values, sums, int(are_probabilities.argmin()))}")
    result: Array = values / sums[:, None]
    return result


def _not_probabilities(values: Array, sums: Array, row: int) -> str:
    """What is wrong with rows of which `row` is the first, and what to do."""
    low = values.min(axis=1)
    if low.min() >= 0:
        return (
            f"rows that sum to 1 expected, found sums of {sums.min():.4g} .. {sums.max():.4g}, the first in row {row}; "
            "divide each row by its sum, or say logits=True if these are logits"
        )
    found = f"0 .. 1 expected, found {low[low < 0][0]:.4g} in row {(low < 0).argmax()}"
    if (np.abs(sums - 1) <= SUM_TOLERANCE).all():
        return f"{found}; rows sum to 1, so it may be rounding: np.clip(pred_probs, 0, None)"
    return f"{found}; these look like logits, or logarithms of probabilities: say logits=True"


def check_columns(pred_probs: object, classes: Sequence[str]) -> None:
    """Refuses a DataFrame whose columns are called as the classes are, but stand in another order.

    Raises:
        InputError: so it is.
    """
    names = [str(name) for name in getattr(pred_probs, "columns", ())]
    if names != list(classes) and sorted(names) == sorted(classes):
        raise InputError(
            f"pred_probs: columns in the classes' order {shown(list(classes))} expected, found {shown(names)}; "
            "pass classes=list(pred_probs.columns)"
        )


def read_features(features: object, num_rows: int) -> Array:
    """Features, moved and scaled so that float32 holds their distances whatever their size.

    Neighbours stay the same: the middle of each column's range goes to 0, and all are divided by one power of two.

    Args:
        features: (N, d) finite numbers, d > 0.
        num_rows: N.

    Returns:
        (N, d) float32 in [-1, 1]; all 0 where all rows are equal.

    Raises:
        InputError: they do not fit; it names the first row and column.
    """
    values = _scaled(_finite_features(features, num_rows))
    return _scaled(values - (values.min(axis=0) + values.max(axis=0)) / 2).astype(np.float32)


def read_stored_features(features: object, num_rows: int) -> Array:
    """Features as a run on them stores them: as they are, unless float16 with one scale would not hold them.

    Args:
        features: (N, d) finite numbers, d > 0.
        num_rows: N.

    Returns:
        (N, d) float32; as of `read_features` where columns lie so far from 0 that their differences would be lost, or
        numbers are too large or too small.

    Raises:
        InputError: see `read_features`.
    """
    values = _finite_features(features, num_rows)
    low, high = (np.asarray(edge) for edge in (values.min(axis=0), values.max(axis=0)))
    with np.errstate(over="ignore", under="ignore"):
        is_near = np.abs(low / 2 + high / 2) <= FAR * (high / 2 - low / 2)
    largest = float(np.abs(values).max())
    holds = (is_near | (low == high)).all() and (largest == 0 or 1 / LARGEST <= largest <= LARGEST)
    return values.astype(np.float32) if holds else read_features(features, num_rows)


def _finite_features(features: object, num_rows: int) -> Array:
    values = real_numbers(features, "features")
    if values.ndim != 2 or not values.shape[1]:
        step = "flatten each row: features.reshape(len(features), -1)" if values.ndim > 2 else "one column per feature"
        raise InputError(f"features: (N, d) with d > 0 expected, found {values.shape}; {step}")
    check_length(len(values), num_rows, "features")
    check_finite(values, "features")
    return values


def _scaled(values: Array) -> Array:
    """Divided by the power of two that takes the largest into [0.5, 1)."""
    exponent = np.frexp(np.abs(values).max())[1]
    result: Array = np.ldexp(values, -exponent)
    return result


def told_apart(features: Array) -> Array | None:
    """Features of `read_features`; None, with a warning, where all rows are equal, so that nothing is near or far."""
    if features.any():
        return features
    warnings.warn("features: all rows are equal; scored as without features", stacklevel=3)
    return None


def read_images(images: object, of: str = "") -> Array:
    """Images as they are scored.

    Args:
        images: (N, S, S, 3) uint8, N > 0 and S > 0.
        of: what stands before the argument's name in errors.

    Raises:
        InputError: they are anything else; it says how to make them so.
    """
    found = stacked(images, f"{of}images")
    if step := _shape_step(found.shape) or _value_step(found):
        raise InputError(f"{of}images: (N, S, S, 3) uint8 expected, found {found.shape} {found.dtype}; {step}")
    return found


def _shape_step(shape: tuple[int, ...]) -> str:
    """How to bring images into shape; empty where they are."""
    match shape:
        case (_, height, width, 3) if height == width:
            return ""
        case (_, height, width) if height == width:
            return "grey: np.repeat(images[..., None], 3, axis=3)"
        case (_, height, width, 1) if height == width:
            return "grey: np.repeat(images, 3, axis=3)"
        case (_, height, width, 4) if height == width:
            return "leave out alpha: images[..., :3]"
        case (_, 3, height, width) if height == width:
            return "channels last: images.permute(0, 2, 3, 1) of a tensor, images.transpose(0, 2, 3, 1) of an array"
    return "square images of three channels: crop, pad or resize them"


def _value_step(images: Array) -> str:
    """How to make (N, S, S, 3) values uint8; empty where they are."""
    if not images.size:
        return "at least one image"
    if images.dtype == np.uint8:
        return ""
    if images.dtype.kind not in "biuf":
        return "numbers"
    low, high = images.min(), images.max()
    if images.dtype.kind in "bf" and low >= 0 and high <= 1:
        return f"values are {low} .. {high}: (images * 255).round().astype(np.uint8)"
    if low >= 0 and high <= 255:
        return f"values are {low} .. {high}: images.round().astype(np.uint8)"
    return f"values are {low} .. {high}: undo the normalisation, then images.round().astype(np.uint8)"


def read_keys(keys: object | None, num_rows: int, what: str = "keys") -> list[str]:
    """Names of the samples, as text; by default their positions. Several may be called the same.

    Args:
        keys: any sequence.
        num_rows: N.
        what: the argument's name, for errors.

    Raises:
        InputError: of another length, not one per sample, or text that no file can hold.
    """
    if keys is None:
        return [str(position) for position in range(num_rows)]
    names = [str(key) for key in as_items(keys, what)]
    check_length(len(names), num_rows, what)
    for position, name in enumerate(names):
        if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
            raise InputError(f"{what}: Unicode text expected, found {shown(name)} at position {position}")
    return names
