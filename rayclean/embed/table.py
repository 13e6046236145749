"""The embedding of a snapshot, as later stages read it: features and beliefs of any rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from rayclean.embed.beliefs import softmax, unpack, with_rest
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.storage.units import Job, block_name


class Space(Job):
    """A job that gives an embedding: features that say what is near, beliefs where a network made them."""

    @property
    @abstractmethod
    def embedding(self) -> Embedding:
        """What the finished job gives."""


@dataclass(frozen=True)
class Embedding:
    """Features and beliefs of every row at a snapshot, in mapped files of `block_rows` rows each.

    Picklable and cheap; files are opened at the first row that is asked of them.
    """

    store: Store
    folder: str
    block_rows: int
    num_classes: int

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # not the mapped files

    @cached_property
    def _blocks(self) -> dict[int, Mapping[str, Array]]:
        return {}

    def block(self, index: int) -> Mapping[str, Array]:
        """The arrays of one block of rows."""
        if index not in self._blocks:
            self._blocks[index] = map_arrays(self.store, f"{self.folder}/{block_name(index)}.safetensors")
        return self._blocks[index]

    def _gather(self, rows: Array, read: Callable[[Mapping[str, Array], Array], Array]) -> Array:
        blocks = rows // self.block_rows
        pieces = [
            (here, read(self.block(int(block)), rows[here] - block * self.block_rows))
            for block in np.unique(blocks)
            for here in (np.flatnonzero(blocks == block),)
        ]
        result = np.empty((len(rows), pieces[0][1].shape[1]), pieces[0][1].dtype)
        for here, values in pieces:
            result[here] = values
        return result

    def features(self, rows: Array) -> Array:
        """(R, d) float16 features of one or more `rows` (R,)."""
        return self._gather(rows, lambda block, which: block["features"][which])

    def logits(self, rows: Array) -> Array:
        """(R, K) float32 logits of one or more `rows` (R,); past 100 classes, log beliefs.

        There the classes that a file dropped share alike what is left of the belief.
        """

        def read(block: Mapping[str, Array], which: Array) -> Array:
            if "logits" in block:
                return block["logits"][which]
            beliefs = unpack(block, which, self.num_classes)
            dropped = beliefs[:, :-1] == 0
            share = beliefs[:, -1:] / np.maximum(dropped.sum(axis=1, keepdims=True), 1)
            values = np.where(dropped, share, beliefs[:, :-1])
            return np.log(np.maximum(values, np.finfo(np.float32).tiny)).astype(np.float32)

        return self._gather(rows, read)

    def beliefs(self, rows: Array) -> Array:
        """(R, K + 1) float64 softmax of one or more `rows` (R,), the sum of what the file dropped last."""

        def read(block: Mapping[str, Array], which: Array) -> Array:
            if "logits" in block:
                return with_rest(softmax(block["logits"][which]))
            return unpack(block, which, self.num_classes)

        return self._gather(rows, read)
