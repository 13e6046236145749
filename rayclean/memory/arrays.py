"""What users hold in memory as NumPy arrays: lists, pandas, pyarrow and torch, all by position."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
import torch

from rayclean.errors import InputError
from rayclean.schema import Array


def as_array(values: object, what: str) -> Array:
    """What holds values in an order, as an array of whatever type; an index beside them is not looked at.

    Args:
        values: a list, an array, a Series, a DataFrame, a tensor.
        what: the argument's name, for errors.

    Raises:
        InputError: rows of different lengths, masked values, or what no array can be made of.
    """
    if np.ma.is_masked(values):
        raise InputError(f"{what}: some values are masked; leave these rows out of all arguments, or fill them")
    try:
        if isinstance(values, torch.Tensor):
            whole = values.detach().cpu()
            return np.asarray(whole.float() if whole.dtype == torch.bfloat16 else whole)
        if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
            return np.array(values, dtype=object)  # NumPy would make text of the numbers beside it
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as e:
        found = f"{type(values).__name__} ({shown(str(e))})"
        raise InputError(f"{what}: an array, or lists of equal lengths expected, found {found}") from e


def stacked(values: object, what: str) -> Array:
    """As `as_array`, and a list or a column of arrays, as tables hold embeddings, as one array.

    Raises:
        InputError: as of `as_array`; the shapes differ.
    """
    cells = values if isinstance(values, list | tuple) else as_array(values, what)
    if isinstance(cells, np.ndarray) and (cells.dtype.kind != "O" or cells.ndim != 1):
        return cells
    if not len(cells) or not all(isinstance(cell, list | tuple | np.ndarray | torch.Tensor) for cell in cells):
        return as_array(values, what)
    rows = [as_array(cell, what) for cell in cells]
    odd = next((position for position, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if odd is not None:
        found = f"{rows[0].shape} in row 0 and {rows[odd].shape} in row {odd}"
        raise InputError(f"{what}: rows of one shape expected, found {found}")
    return np.stack(rows)


def real_numbers(values: object, what: str) -> Array:
    """Numbers of any kind that is real, NaN and infinity too, as float64 of their shape.

    Raises:
        InputError: something else is among them.
    """
    array = stacked(values, what)
    if array.dtype.kind == "O":
        odd = next((i for i, value in enumerate(array.flat) if not isinstance(value, Real | np.bool_)), None)
        if odd is not None:
            raise InputError(f"{what}: numbers expected, found {shown(array.flat[odd])} in {_place(array, odd)}")
    elif array.dtype.kind not in "biuf":
        raise InputError(f"{what}: numbers expected, found {array.dtype}")
    try:
        with np.errstate(over="ignore"):  # what float64 cannot hold is then infinite
            return array.astype(np.float64)
    except OverflowError as e:
        raise InputError(f"{what}: numbers up to 1e308 expected, found a larger one") from e


def check_finite(values: Array, what: str) -> None:
    """Refuses NaN and infinity.

    Raises:
        InputError: names the first place.
    """
    wrong = ~np.isfinite(values)
    if wrong.any():
        at = int(wrong.argmax())
        step = "fill it, or leave the row out of all arguments"
        raise InputError(f"{what}: finite numbers expected, found {values.flat[at]} in {_place(values, at)}; {step}")


def check_length(found: int, expected: int, what: str) -> None:
    """Refuses an argument that has not a row for each sample.

    Raises:
        InputError: the lengths differ.
    """
    if found != expected:
        raise InputError(f"{what}: ({expected},) expected, one per sample, found {found}; give the same samples in all")


def as_items(values: object, what: str) -> Sequence[object]:
    """The values of a sequence, as Python has them.

    Raises:
        InputError: it is no sequence, or has more than one axis.
    """
    items = values if isinstance(values, list | tuple) else as_array(values, what).tolist()
    if not isinstance(items, list | tuple):
        raise InputError(f"{what}: a sequence expected, found {shown(items)}")
    odd = next((item for item in items if isinstance(item, list | tuple | dict | set | np.ndarray)), None)
    if odd is not None:
        raise InputError(f"{what}: a sequence of single values expected, found {shown(odd)} in it")
    return items


def shown(value: object) -> str:
    """A user's value, short and safe to print; text in quotes."""
    try:
        text = ascii(value) if isinstance(value, str) else ascii(str(value))[1:-1]
    except ValueError:  # an int of thousands of digits
        text = "a very long number"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _place(array: Array, index: int) -> str:
    """Where a flat index is, in words; axes beyond the second are not told."""
    where = np.unravel_index(index, array.shape)
    return ", ".join(f"{axis} {at}" for axis, at in zip(("row", "column"), where, strict=False)) or "it"
