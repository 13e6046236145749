"""IOFM or INN of a snapshot: partial sums of paths reduced by row, one block of rows per unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import pack, unpack
from rayclean.embed.stage import EmbedJob
from rayclean.embed.table import Embedding
from rayclean.schema import Array
from rayclean.scores.interpolation import path_means
from rayclean.scores.paths_stage import PathsJob
from rayclean.storage.contents import map_arrays
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult, block_names, block_range

VERSION = 1


@dataclass(frozen=True)
class InterpolateJob(Job):
    """Reduces a snapshot's partial sums.

    Attributes:
        paths: what they compute is read by their units' names, never by what happens to lie there.
    """

    stage: ClassVar[str] = "interpolate"
    catalog: Catalog
    embedding: Embedding
    paths: PathsJob
    steps: int
    end_weight: float

    def units(self) -> Sequence[str]:
        return block_names(self.catalog.num_rows, self.embedding.block_rows)

    def open(self) -> Callable[[str], UnitResult]:
        """Maps the partial sums of all blocks of pairs; their rows ascend, so a block of rows is one slice of each."""
        files = [map_arrays(self.store, self.paths.file(unit)) for unit in self.paths.units()]

        def compute(unit: str) -> UnitResult:
            start, stop = block_range(int(unit), self.embedding.block_rows, self.catalog.num_rows)
            own = self.embedding.beliefs(np.arange(start, stop))
            sums, num_paths = reduce_by_row(files, start, stop, self.catalog.num_classes)
            labels = self.catalog.label[start:stop]
            means = path_means(own, sums, num_paths, self.steps, labels, self.end_weight)
            content = {"score": means.score, "one_minus": means.one_minus, "num_paths": num_paths.astype(np.int16)}
            return UnitResult(content | pack(means.belief, labels), rows=stop - start)

        return compute


def reduce_by_row(files: Sequence[Mapping[str, Array]], start: int, stop: int, num_classes: int) -> tuple[Array, Array]:
    """Adds up the partial sums of rows [start, stop), file by file in order.

    Returns:
        (N, K + 1) float64 sums, the last column of what files dropped, and (N,) int64 numbers of paths.
    """
    sums = np.zeros((stop - start, num_classes + 1))
    num_paths = np.zeros(stop - start, np.int64)
    # Always in the order of the files: another one would change the sums' last bits.
    for file in files:
        first, last = np.searchsorted(file["rows"], [start, stop])
        here = file["rows"][first:last] - start
        sums[here] += unpack(file, slice(first, last), num_classes)
        num_paths[here] += file["num_paths"][first:last]
    return sums, num_paths


def interpolate_job(paths: PathsJob, ends: EmbedJob) -> InterpolateJob:
    """The scores of a snapshot's paths."""
    mark = fingerprint("interpolate", VERSION, {"block_rows": ends.block_rows}, [paths.folder])
    folder, catalog, how = f"interpolate-{mark}", paths.catalog, (paths.steps, paths.end_weight)
    return InterpolateJob(ends.store, folder, catalog, ends.embedding, paths, *how, after=(paths, ends))
