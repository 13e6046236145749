"""The files of a snapshot's index as arrays: features and IVF lists by part, the shared centroids."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rayclean.neighbors.ivf import load_lists
from rayclean.neighbors.parts import Part
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

HELD_BYTES = 512 * 2**20
QUANTIZER = "quantizer"
PROBES = "probes"


class Span(NamedTuple):
    """Positions [start, stop) of one part."""

    part: int
    start: int
    stop: int


class Probes(NamedTuple):
    """How many cells are searched for a query (nprobe), by kind of query."""

    same: int
    any: int


def part_name(index: int) -> str:
    """The unit of a part: its file in the index's folder, without the suffix."""
    return f"parts/{block_name(index)}"


def lists_name(unit: str) -> str:
    """The IVF file that a part's unit publishes beside its own."""
    return f"{unit}.faiss"


class IndexFiles:
    """Opens what is asked for, once: files are mapped, and the last spans searched flat stay as float32.

    Args:
        store: the run's files.
        folder: the index's.
        parts: its parts.
    """

    def __init__(self, store: Store, folder: str, parts: list[Part]) -> None:
        self.store, self.folder, self.parts = store, folder, parts
        self.edges = np.array([part.start for part in parts] + [parts[-1].stop])
        self.mapped: dict[int, Mapping[str, Array]] = {}
        self.opened: dict[int, Any] = {}
        self.held: OrderedDict[Span, Array] = OrderedDict()

    def _part(self, index: int) -> Mapping[str, Array]:
        if index not in self.mapped:
            self.mapped[index] = map_arrays(self.store, f"{self.folder}/{part_name(index)}.safetensors")
        return self.mapped[index]

    def features(self, positions: Array) -> Array:
        """(M, d) float16 features at `positions` (M,), M > 0."""
        parts = np.searchsorted(self.edges, positions, side="right") - 1
        first = self._part(int(parts[0]))["features"]
        if (parts == parts[0]).all():
            result: Array = first[positions - self.edges[parts[0]]]
            return result
        result = np.empty((len(positions), first.shape[1]), first.dtype)
        for part in np.unique(parts):
            here = np.flatnonzero(parts == part)
            result[here] = self._part(int(part))["features"][positions[here] - self.edges[part]]
        return result

    def base(self, span: Span) -> Array:
        """(n, d) float32 features of a span."""
        if span not in self.held:
            self.held[span] = self._of(span, "features").astype(np.float32)
            # The span that is asked for stays, however large it is.
            while len(self.held) > 1 and sum(array.nbytes for array in self.held.values()) > HELD_BYTES:
                self.held.popitem(last=False)
        self.held.move_to_end(span)
        return self.held[span]

    def cells(self, span: Span) -> Array:
        """(n,) int32 cell of each position of a span; with IVF only."""
        return self._of(span, "cells")

    def _of(self, span: Span, name: str) -> Array:
        offset = self.parts[span.part].start
        return self._part(span.part)[name][span.start - offset : span.stop - offset]

    def lists(self, part: int) -> Any:
        """The IVF lists of a part."""
        if part not in self.opened:
            self.opened[part] = load_lists(self.store, f"{self.folder}/{lists_name(part_name(part))}")
        return self.opened[part]

    def centroids(self) -> Array:
        """(C, d) float32: the coarse quantiser that all parts share."""
        return map_arrays(self.store, f"{self.folder}/{QUANTIZER}.safetensors")["centroids"]

    def probes(self) -> Probes:
        """What was measured to reach the target."""
        found = read_json(self.store, f"{self.folder}/{PROBES}.json")
        return Probes(**{kind: found[kind]["probes"] for kind in Probes._fields})
