"""Labels as users pass them to LabelScorer: numbers or names of classes, and those that people have verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from rayclean.config.sections import MAX_CLASSES
from rayclean.errors import InputError
from rayclean.memory.arrays import as_array, as_items, check_length, shown
from rayclean.schema import DROP, DROPPED, NO_LABEL, Array, drop_word


class Labels(NamedTuple):
    """Labels of N samples, and what their K classes are called.

    Attributes:
        values: (N,) int64, 0 .. K - 1.
        classes: K distinct names; `0`, `1`, ... where labels are numbers and nothing else was said.
    """

    values: Array
    classes: list[str]


def read_labels(
    labels: object,
    num_rows: int,
    num_classes: int | None = None,
    classes: object | None = None,
    what: str = "labels",
) -> Labels:
    """Labels by position, whatever holds them: whole numbers from 0, or names of classes.

    Numbers are positions in `classes`. Names without `classes` mean the sorted distinct ones, as scikit-learn has them;
    where K is known there must be so many.

    Args:
        labels: (N,) or (N, 1).
        num_rows: N.
        num_classes: K; by default the number of names, or the largest label plus one.
        classes: K names.
        what: the argument's name, for errors.

    Raises:
        InputError: they do not fit; it names the first position and value.
    """
    column = _column(labels, what)
    if not len(column):
        raise InputError(f"{what}: at least one expected, found none")
    check_length(len(column), num_rows, what)
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes: at least one class expected, found {num_classes}")
    names = None if classes is None else read_classes(classes)
    if names is not None and num_classes not in (None, len(names)):
        raise InputError(f"classes: {num_classes} names expected, one per class, found {len(names)}: {shown(names)}")
    if _is_text(column, what):
        names = names or _sorted_names(column.tolist(), num_classes, what)
        return Labels(_positions(column.tolist(), names, what), names)
    num_classes = num_classes if names is None else len(names)
    values = _whole_numbers(column, num_classes or MAX_CLASSES, what)
    return Labels(values, names or [str(label) for label in range(num_classes or int(values.max()) + 1)])


def read_classes(classes: object) -> list[str]:
    """Names of the classes, in the order of the columns of probabilities.

    Raises:
        InputError: none, one twice, or one that is no text.
    """
    items = as_items(classes, "classes")
    if not items:
        raise InputError("classes: names expected, found none")
    for position, name in enumerate(items):
        if not isinstance(name, str):
            raise InputError(
                f"classes: names as text expected, found {shown(name)} at position {position}; leave classes out where "
                "labels are 0 .. K - 1, else turn labels and classes into text alike"
            )
    names = [str(name) for name in items]
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InputError(f"classes: distinct names expected, found {shown(twice)} twice")
    return names


def read_verified_labels(
    verified: object | None, num_rows: int, classes: Sequence[str], what: str = "verified"
) -> Array:
    """Labels that people have verified, for some of the samples.

    A label is a class's number or name. `drop`, where no class is called so, or -2 says that no class is right; -1,
    None and NaN say that nobody has looked.

    Args:
        verified: position -> label as a mapping, or (N,) labels.
        num_rows: N.
        classes: names of the K classes.
        what: the argument's name, for errors.

    Returns:
        (N,) int64, `NO_LABEL` where nobody has looked, `DROPPED` where no class is right.

    Raises:
        InputError: it names the first position and value that do not fit.
    """
    if isinstance(verified, Mapping):
        rows = [_position(key, num_rows, what) for key in verified]
        items: Sequence[object] = list(verified.values())
    else:
        items = [] if verified is None else _column(verified, what).tolist()
        check_length(len(items), 0 if verified is None else num_rows, what)
        rows = list(range(len(items)))
    index = {drop_word(classes): DROPPED} | {name: label for label, name in enumerate(classes)}
    labels = np.full(num_rows, NO_LABEL, np.int64)
    for row, item in zip(rows, items, strict=True):
        labels[row] = _verified_label(item, index, len(classes), f"{what}: position {row}")
    return labels


def _column(values: object, what: str) -> Array:
    """(N,) numbers or objects."""
    column = as_array(values, what)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim == 2:
        raise InputError(
            f"{what}: (N,) expected, one per sample, found {column.shape}; of one-hot rows take .argmax(axis=1)"
        )
    if column.ndim != 1:
        raise InputError(f"{what}: (N,) expected, one per sample, found {shown(values)} of shape {column.shape}")
    return column.astype(object) if column.dtype.kind in "UT" else column


def _is_text(column: Array, what: str) -> bool:
    """Whether all of a column is text; False where all of it is numbers.

    Raises:
        InputError: it is neither; it names the first that differs.
    """
    if column.dtype.kind in "biuf":
        return False
    if column.dtype.kind != "O":
        raise InputError(f"{what}: whole numbers or names expected, found {column.dtype}")
    is_text = any(isinstance(item, str) for item in column)
    kind = str if is_text else Real | np.bool_
    for position, item in enumerate(column):
        if not isinstance(item, kind):
            expected = "names" if is_text else "whole numbers or names"
            found = f"found {shown(item)} at position {position}"
            raise InputError(f"{what}: {expected} expected, {found}; correct it, or leave the sample out")
    return is_text


def _whole_numbers(column: Array, stop: int, what: str) -> Array:
    """Integers, bool, or floats without a fraction, from 0 and below `stop`, as (N,) int64."""
    wide = column.astype({"f": np.float64, "b": np.int64}.get(column.dtype.kind, column.dtype))
    with np.errstate(invalid="ignore"):
        whole = np.asarray(wide % 1 == 0, bool)
        fits = whole & np.asarray(wide >= 0, bool) & np.asarray(wide < stop, bool)
    if not fits.all():
        position = int(fits.argmin())
        found = f"found {shown(column[position])} at position {position}"
        if not whole[position]:
            raise InputError(f"{what}: whole numbers expected, {found}; correct it, or leave the sample out")
        step = "number the classes from 0, or give names as text and classes=[...]"
        raise InputError(f"{what}: 0 .. {stop - 1} expected, {found}; {step}")
    return wide.astype(np.int64)


def _sorted_names(items: list[str], num_classes: int | None, what: str) -> list[str]:
    """The distinct names in order, where that can be the order of K columns."""
    names = sorted({str(item) for item in items})
    if num_classes is None:
        return names
    step = "give the names of all classes, in the order of the columns: classes=[...]"
    if len(names) != num_classes:
        raise InputError(f"{what}: {num_classes} distinct names expected, found {len(names)}: {shown(names)}; {step}")
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        raise InputError(f"{what}: names expected, found numbers as text, which sort as {shown(names)}; {step}")
    return names


def _positions(items: list[str], names: Sequence[str], what: str) -> Array:
    """(N,) int64 the class of each name."""
    index = {name: label for label, name in enumerate(names)}
    odd = next((position for position, item in enumerate(items) if item not in index), None)
    if odd is not None:
        raise InputError(f"{what}: one of {shown(list(names))} expected, found {shown(items[odd])} at position {odd}")
    return np.array([index[item] for item in items], np.int64)


def _position(key: object, num_rows: int, what: str) -> int:
    """The sample that a key of verified labels is of."""
    if isinstance(key, int | np.integer) and 0 <= key < num_rows:
        return int(key)
    raise InputError(f"{what}: positions 0 .. {num_rows - 1} expected as keys, found {shown(key)}")


def _verified_label(item: object, index: Mapping[str, int], num_classes: int, where: str) -> int:
    """A verified label as a number, see `read_verified_labels`."""
    if item is None or (isinstance(item, float | np.floating) and np.isnan(item)):
        return NO_LABEL
    if isinstance(item, str) and item in index:
        return index[item]
    if isinstance(item, int | float | np.integer | np.floating) and item % 1 == 0 and DROPPED <= item < num_classes:
        return int(item)
    expected = f"a name, 0 .. {num_classes - 1}, -1 (not looked at) or {DROP} (no class is right) expected"
    raise InputError(f"{where}: {expected}, found {shown(item)}")
