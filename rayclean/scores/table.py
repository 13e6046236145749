"""All scores of a block of rows, read from the files of the families."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.config import MAIN
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
        num_paths: (N,) same-label neighbours that were found; None without IOFM.
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
        embedding: of role `main` at its last snapshot.
        trajectory_folders: by role.
        iofm_folders: in order of the snapshots.
        inn_folders: likewise.
    """

    catalog: Catalog
    embedding: Embedding
    names: tuple[str, ...]
    trajectory_folders: dict[str, str]
    iofm_folders: tuple[str, ...]
    inn_folders: tuple[str, ...]
    vote_folder: str

    def inputs(self) -> list[str]:
        """What a fingerprint of anything that reads them holds."""
        return [
            self.catalog.fingerprint,
            self.embedding.folder,
            *(f"{role} {folder}" for role, folder in self.trajectory_folders.items()),
            *(f"iofm {folder}" for folder in self.iofm_folders),
            *(f"inn {folder}" for folder in self.inn_folders),
            self.vote_folder,
        ]

    def _map(self, folder: str, block: int) -> dict[str, Array]:
        return map_arrays(self.catalog.store, f"{folder}/{block_name(block)}.safetensors")

    def read(self, block: int) -> BlockScores:
        """The scores of a block of rows."""
        start, stop = block_range(block, self.embedding.block_rows, self.catalog.num_rows)
        scores = self._trajectory(block)
        vote = self._map(self.vote_folder, block)
        scores["vote"] = vote["vote"]
        iofm = [self._map(folder, block) for folder in self.iofm_folders]
        inn = [self._map(folder, block) for folder in self.inn_folders]
        one_minus: dict[str, Array] = {}
        for name, walked in (("iofm", iofm), ("iofm_last", iofm[-1:]), ("inn", inn[-1:])):
            if walked:
                scores[name] = np.mean([walk["score"] for walk in walked], axis=0)
                one_minus[name] = np.mean([walk["one_minus"] for walk in walked], axis=0)
        beliefs = [unpack(walked[-1], slice(None), self.catalog.num_classes) for walked in (iofm, inn) if walked]
        belief = beliefs[0] if beliefs else self.embedding.beliefs(np.arange(start, stop))
        return BlockScores(
            scores={name: np.asarray(scores[name], np.float64) for name in self.names},
            one_minus=one_minus,
            belief=belief[:, :-1],
            num_paths=iofm[-1]["num_paths"] if iofm else None,
            neighbors=vote["neighbors"],
        )

    def _trajectory(self, block: int) -> dict[str, Array]:
        """The trajectory scores of all roles; of role `main` without epochs, those of its snapshot."""
        scores: dict[str, Array] = {}
        if MAIN not in self.trajectory_folders:
            embedded = self.embedding.block(block)
            scores |= {"loss": -embedded["loss"], "margin": embedded["margin"]}
        for role, folder in self.trajectory_folders.items():
            ending = "" if role == MAIN else f"_{role}"
            scores |= {f"{name}{ending}": values for name, values in self._map(folder, block).items()}
        return scores
