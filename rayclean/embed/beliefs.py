"""How beliefs (vectors over the classes) are stored: whole up to 100 classes, else their largest entries.

Arithmetic is on dense blocks in memory of K + 1 columns: the classes and, last, `rest`, the sum of the entries
that a file dropped. The entry at the given label is never dropped, so a score and 1 - score stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rayclean.schema import Array

MAX_DENSE_CLASSES = 100
NUM_LARGEST = 20


def with_rest(values: Array) -> Array:
    """(N, K) complete vectors as (N, K + 1): nothing was dropped."""
    return np.pad(values, ((0, 0), (0, 1)))


def pack(beliefs: Array, labels: Array) -> dict[str, Array]:
    """The arrays of a file.

    Args:
        beliefs: (N, K + 1) entries that are not negative.
        labels: (N,) the class of each row whose entry is always kept.

    Returns:
        `values` (N, K) float32 up to 100 classes; else `classes` (N, 21) int32 and `values` (N, 21) float32, the
        given label last and not among the others, and `rest` (N,) float32.
    """
    dense = beliefs[:, :-1]
    if dense.shape[1] <= MAX_DENSE_CLASSES:
        return {"values": dense.astype(np.float32)}
    others = dense.copy()
    others[np.arange(len(dense)), labels] = -1.0  # below every entry
    # Ties by class, so that the bytes do not depend on the sort.
    largest = np.argsort(-others, axis=1, kind="stable")[:, :NUM_LARGEST]
    classes = np.concatenate([largest, np.asarray(labels, np.int64)[:, None]], axis=1)
    values = np.take_along_axis(dense, classes, axis=1)
    np.put_along_axis(others, classes, 0.0, axis=1)
    rest = others.sum(axis=1) + beliefs[:, -1]
    return {"classes": classes.astype(np.int32), "values": values.astype(np.float32), "rest": rest.astype(np.float32)}


def unpack(arrays: Mapping[str, Array], which: Array | slice, num_classes: int) -> Array:
    """(R, K + 1) float64 beliefs of some rows of a file that `pack` gave."""
    values = arrays["values"][which].astype(np.float64)
    if "classes" not in arrays:
        return with_rest(values)
    result = np.zeros((len(values), num_classes + 1))
    np.put_along_axis(result, arrays["classes"][which].astype(np.int64), values, axis=1)
    result[:, -1] = arrays["rest"][which]
    return result


def softmax(logits: Array) -> Array:
    """Softmax over the last axis in float64."""
    z = logits.astype(np.float64)
    with np.errstate(under="ignore"):  # what is that small is nothing, also where the caller looks out for it
        z = np.exp(z - z.max(axis=-1, keepdims=True))
    result: Array = z / z.sum(axis=-1, keepdims=True)
    return result
