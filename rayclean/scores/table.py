"""All scores of a block of rows, read from the files of the families."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import unpack
from rayclean.embed.table import Embedding
from rayclean.storage.contents import map_arrays
from rayclean.storage.units import block_name, block_range


@dataclass(frozen=True)
class BlockScores:
    """What is known of N rows.

    Attributes:
        scores: name -> (N,) float64, NaN where undefined.
        one_minus: 1 - score without cancellation, for scores in [0, 1] that have it.
        belief: (N, K) the most direct belief: path-averaged at the last snapshot, else the last softmax.
        num_paths: (N,) same-label neighbours that were found; None without paths.
        neighbors: (N, 3) the nearest rows of any label, -1 where there are fewer.
    """

    scores: dict[str, Array]
    one_minus: dict[str, Array]
    belief: Array
    num_paths: Array | None
    neighbors: Array


@dataclass(frozen=True)
class ScoreFiles:
    """Where the families' results lie; a family that the run does not have is None or empty.

    Attributes:
        interpolate_folders: in order of the snapshots.
    """

    catalog: Catalog
    embedding: Embedding
    names: tuple[str, ...]
    trajectory_folder: str | None
    interpolate_folders: tuple[str, ...]
    vote_folder: str

    def inputs(self) -> list[str]:
        """What a fingerprint of anything that reads them holds."""
        return [
            self.catalog.fingerprint,
            self.embedding.folder,
            self.trajectory_folder or "",
            *self.interpolate_folders,
            self.vote_folder,
        ]

    def _map(self, folder: str, block: int) -> dict[str, Array]:
        return map_arrays(self.catalog.store, f"{folder}/{block_name(block)}.safetensors")

    def read(self, block: int) -> BlockScores:
        """The scores of a block of rows."""
        start, stop = block_range(block, self.embedding.block_rows, self.catalog.num_rows)
        rows = np.arange(start, stop)
        scores: dict[str, Array] = {}
        one_minus: dict[str, Array] = {}
        if self.trajectory_folder is not None:
            scores |= self._map(self.trajectory_folder, block)
        else:
            embedded = self.embedding.block(block)
            scores |= {"loss": -embedded["loss"], "margin": embedded["margin"]}
        vote = self._map(self.vote_folder, block)
        scores["vote"] = vote["vote"]
        paths = [self._map(folder, block) for folder in self.interpolate_folders]
        if paths:
            for name, used in (("iofm", paths), ("iofm_last", paths[-1:])):
                scores[name] = np.mean([path["score"] for path in used], axis=0)
                one_minus[name] = np.mean([path["one_minus"] for path in used], axis=0)
        belief = unpack(paths[-1], slice(None), self.catalog.num_classes) if paths else self.embedding.beliefs(rows)
        return BlockScores(
            scores={name: np.asarray(scores[name], np.float64) for name in self.names},
            one_minus=one_minus,
            belief=belief[:, :-1],
            num_paths=paths[-1]["num_paths"] if paths else None,
            neighbors=vote["neighbors"],
        )
