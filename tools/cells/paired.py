"""Differences of two methods on the same test images: what each gets right of each image is kept with the results.

Letters: R test images, S seeds.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store

EXAM = "test"
NORMAL = 1.96  # deviations of a 95% interval


class Difference(NamedTuple):
    """Accuracy of one method less that of another, as shares; `half`: half the width of its 95% interval."""

    mean: float
    half: float

    @property
    def verdict(self) -> str:
        """`undecided` where the interval holds 0."""
        if abs(self.mean) <= self.half:
            return "undecided"
        return "above" if self.mean > 0 else "below"


def with_correct(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """A result of `rayclean learn`, each trial with which test images it gets right, where the run has kept that."""
    store = Store(str(folder))
    for trial in result["trials"]:
        if file := trial["facts"].get("correct"):
            right = map_arrays(store, file).get(EXAM)
            if right is not None:
                trial[EXAM] = {"images": len(right), "correct": base64.b64encode(np.packbits(right).tobytes()).decode()}
    return result


def correct_of(trial: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """(R,) bool of a kept trial; None where it was not kept."""
    if EXAM not in trial:
        return None
    packed = np.frombuffer(base64.b64decode(trial[EXAM]["correct"]), np.uint8)
    return np.unpackbits(packed, count=trial[EXAM]["images"]).astype(bool)


def paired(one: Sequence[NDArray[np.bool_]], other: Sequence[NDArray[np.bool_]]) -> Difference:
    """The difference with its interval by pairs: what both get right or wrong of an image cancels.

    Images are a sample: their variance is that of each image's mean difference over the seeds. So are seeds, where
    there are more than one: that of the seeds' differences is added, which counts the images' share of it twice, so
    the interval is a little too wide rather than too narrow.

    Args:
        one: (R,) bool for each of S seeds.
        other: the same images and seeds.
    """
    differences = np.array(one, np.float64) - np.array(other, np.float64)
    seeds, images = differences.shape
    variance = differences.mean(axis=0).var(ddof=1) / images if images > 1 else 0.0
    if seeds > 1:
        variance += differences.mean(axis=1).var(ddof=1) / seeds
    return Difference(float(differences.mean()), NORMAL * math.sqrt(variance))
