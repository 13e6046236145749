"""What a lesson's file says: labels and weights by row, and perhaps what each class has of a row.

Letters: N rows, R of them, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack, unpack, with_rest
from rayclean.schema import LEFT_OUT, Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.train.batches import Lesson


@dataclass(frozen=True)
class SoftTargets:
    """Soft targets in a file, whole up to 100 classes, else the largest 20 and that of the given label.

    Attributes:
        arrays: of `packed_posterior`.
        num_classes: K.
    """

    arrays: Mapping[str, Array]
    num_classes: int

    def __call__(self, rows: Array) -> Array:
        """(R, K) float32 of rows (R,); each sums to 1, what the file dropped being shared out by what it kept."""
        found = unpack(self.arrays, rows, self.num_classes)[:, :-1]
        totals = found.sum(axis=1, keepdims=True)
        return np.asarray(found / np.where(totals > 0, totals, 1), np.float32)


def packed_posterior(whole: Array, given: Array) -> dict[str, Array]:
    """A lesson's arrays for some rows: the classes' shares as targets, and what is left of a row as its weight.

    Args:
        whole: (n, K + 1) probabilities of the classes, and of none of them last.
        given: (n,) labels.

    Returns:
        `labels` (n,) int32, the likeliest class, `LEFT_OUT` where none of them is possible; `weights` (n,) float32,
        1 - P(none of the classes); and what `pack` gives of the targets.
    """
    classes = whole[:, :-1]
    weights = classes.sum(axis=1)
    targets = classes / np.where(weights > 0, weights, 1)[:, None]
    labels = np.where(weights > 0, classes.argmax(axis=1), LEFT_OUT).astype(np.int32)
    return {"labels": labels, "weights": weights.astype(np.float32), **pack(with_rest(targets), given)}


def read_lesson(store: Store, catalog: Catalog, file: str | None) -> Lesson:
    """What a lesson says, or the given labels of all rows."""
    if file is None:
        return Lesson(catalog.label)
    arrays = map_arrays(store, file)
    targets = SoftTargets(arrays, catalog.num_classes) if "values" in arrays else None
    return Lesson(arrays["labels"], arrays.get("weights"), targets)
