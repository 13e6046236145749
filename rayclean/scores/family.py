"""What a family of scores adds to a run: its jobs, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from rayclean.schema import Array
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.storage.units import Job, block_name, num_blocks


class Values(NamedTuple):
    """A family's scores of a block of rows, as of the last epoch that it was taken at.

    Attributes:
        scores: name -> (n,), NaN where undefined; more than the run wants do no harm.
        one_minus: 1 - score without cancellation, for scores in [0, 1] that have it.
        facts: raw columns beside the scores, by name; (n,) each.
    """

    scores: Mapping[str, Array]
    one_minus: Mapping[str, Array] = {}
    facts: Mapping[str, Array] = {}


class Reader(Protocol):
    """Reads what the jobs of a family have published. Picklable and small: it travels with the jobs of the merge."""

    def inputs(self) -> Sequence[str]:
        """What a fingerprint of anything that reads them holds: folders, and what else changes the values."""

    def read(self, block: int) -> Values:
        """The scores of a block of rows (`blocks.rows`)."""

    def courses(self, num_rows: int) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """For curves: epochs with the scores of all rows as of then, (N,) each; an epoch may come again with others."""


class Added(NamedTuple):
    """What a family adds to a run.

    Attributes:
        jobs: those whose results are read; what they read in turn follows from `Job.after`.
        reader: of their results.
    """

    jobs: tuple[Job, ...]
    reader: Reader


@dataclass(frozen=True)
class BlockFiles:
    """The usual reader: one file of arrays per block of rows, named by scores and facts, one folder per epoch.

    Attributes:
        mark: what the folders are, for fingerprints.
        folders: by epoch, ascending.
        scores: names of arrays; (n,) each.
        facts: likewise.
        block_rows: rows of a block.
    """

    store: Store
    mark: str
    folders: Mapping[int, str]
    scores: tuple[str, ...]
    block_rows: int
    facts: tuple[str, ...] = ()

    def inputs(self) -> list[str]:
        """The folders, each with its mark."""
        return [f"{self.mark} {folder}" for folder in self.folders.values()]

    def read(self, block: int) -> Values:
        """The values in the last folder."""
        arrays = self.arrays(self.folders[max(self.folders)], block)
        return Values({name: arrays[name] for name in self.scores}, {}, {name: arrays[name] for name in self.facts})

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """The values in each folder, by its epoch."""
        for epoch, folder in self.folders.items():
            yield epoch, {name: self.column(folder, name, num_rows) for name in self.scores}

    def column(self, folder: str, name: str, num_rows: int) -> Array:
        """An array of all rows, (N,)."""
        blocks = range(num_blocks(num_rows, self.block_rows))
        return np.concatenate([self.arrays(folder, block)[name] for block in blocks])

    def arrays(self, folder: str, block: int) -> Mapping[str, Array]:
        """A block's file."""
        return map_arrays(self.store, f"{folder}/{block_name(block)}.safetensors")
