"""All scores of a block of rows, read from the files of the families."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.config import MAIN
from rayclean.embed.beliefs import unpack
from rayclean.embed.table import Embedding
from rayclean.scores.influence_votes import Moments, Standardize, osd_score, osm_score, standardized, votes
from rayclean.storage.contents import map_arrays
from rayclean.storage.units import block_name, block_range


@dataclass(frozen=True)
class BlockScores:
    """What is known of N rows.

    Attributes:
        scores: name -> (N,) float64, NaN where undefined.
        one_minus: 1 - score without cancellation, for scores in [0, 1] that have it.
        belief: (N, K) the most direct belief: path-averaged at the last snapshot, else the last softmax.
        facts: raw columns beside the scores, by name; (N,) each.
        num_paths: (N,) same-label neighbours that were found; None without IOFM.
        neighbors: (N, 3) the nearest rows of any label, -1 where there are fewer.
    """

    scores: dict[str, Array]
    one_minus: dict[str, Array]
    facts: dict[str, Array]
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
        standardize: over what OSD's z-scores run.
    """

    catalog: Catalog
    embedding: Embedding
    names: tuple[str, ...]
    trajectory_folders: dict[str, str]
    iofm_folders: tuple[str, ...]
    inn_folders: tuple[str, ...]
    vote_folder: str
    influence_folder: str | None = None
    standardize: Standardize = "samples"
    simulate_folder: str | None = None

    def inputs(self) -> list[str]:
        """What a fingerprint of anything that reads them holds."""
        return [
            self.catalog.fingerprint,
            self.embedding.folder,
            *(f"{role} {folder}" for role, folder in self.trajectory_folders.items()),
            *(f"iofm {folder}" for folder in self.iofm_folders),
            *(f"inn {folder}" for folder in self.inn_folders),
            self.vote_folder,
            f"influence {self.influence_folder} {self.standardize}",
            f"simulate {self.simulate_folder}",
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
        facts: dict[str, Array] = {}
        if self.influence_folder is not None:
            self._add_influence(block, scores, facts)
        if self.simulate_folder is not None:
            judged = self._map(f"{self.simulate_folder}/rows", block)
            scores["odd"] = judged.pop("odd")
            facts |= judged
        beliefs = [unpack(walked[-1], slice(None), self.catalog.num_classes) for walked in (iofm, inn) if walked]
        belief = beliefs[0] if beliefs else self.embedding.beliefs(np.arange(start, stop))
        return BlockScores(
            scores={name: np.asarray(scores[name], np.float64) for name in self.names},
            one_minus=one_minus,
            facts=facts,
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

    def _add_influence(self, block: int, scores: dict[str, Array], facts: dict[str, Array]) -> None:
        """Standardizes a block's raw influences by what was fitted on all rows, and counts votes."""
        raw = self._map(f"{self.influence_folder}/raw", block)
        fit = map_arrays(self.catalog.store, f"{self.influence_folder}/fit.safetensors")

        def fitted(name: str) -> Moments:
            return Moments(*(fit[f"{name}_{key}"] for key in Moments._fields))

        scores["osm"] = osm_score(standardized(raw["norm"], fit=fitted("norm")))
        if "deviation" in raw:
            over_rows = fitted("deviation") if self.standardize == "samples" else None
            osd = standardized(raw["deviation"], self.standardize, over_rows)
            scores["osd"], facts["osd_votes"] = osd_score(osd), votes(osd, fit["thresholds"])
