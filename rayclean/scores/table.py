"""All scores of a block of rows, read from the files of the families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.config import MAIN
from rayclean.embed.beliefs import unpack
from rayclean.embed.table import Embedding
from rayclean.schema import Array
from rayclean.scores.block import BlockScores
from rayclean.scores.influence_scores import influence_scores
from rayclean.scores.influence_votes import Standardize
from rayclean.scores.sources import LAST, Sources, combined
from rayclean.storage.contents import map_arrays
from rayclean.storage.units import block_name, block_range


@dataclass(frozen=True)
class ScoreFiles:
    """Where the families' results lie; a family that the run does not have is None or empty.

    Attributes:
        embedding: of role `main` at its last snapshot.
        belief_folders: of the interpolation scores of each snapshot of role `main` that has any, and of the last
            one, by epoch; none of these: the belief is the softmax.
        others: embeddings of further networks at their last snapshots, whose beliefs may be taken.
        trajectory_folders: by role.
        iofm_folders: in order of the snapshots.
        inn_folders: likewise.
        vote_folders: likewise; the last snapshot's is always there.
        influence_folders: likewise; the last snapshot's is always there, where there is any.
        standardize: over what OSD's z-scores run.
    """

    catalog: Catalog
    embedding: Embedding
    names: tuple[str, ...]
    trajectory_folders: dict[str, str]
    iofm_folders: tuple[str, ...]
    inn_folders: tuple[str, ...]
    vote_folders: tuple[str, ...]
    belief_folders: dict[int, tuple[str, ...]]
    others: dict[str, Embedding] = field(default_factory=dict)
    influence_folders: tuple[str, ...] = ()
    standardize: Standardize = "samples"
    simulate_folder: str | None = None
    aum_folder: str | None = None

    @property
    def of_rows(self) -> ScoreFiles:
        """The same of rows, as these are; `ClipFiles` has those of its frames."""
        return self

    @property
    def num_rows(self) -> int:
        """N."""
        return self.catalog.num_rows

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return self.embedding.block_rows

    def draw_ids(self, start: int, stop: int) -> Array:
        """Identities of rows [start, stop) for seeded draws, uint64."""
        return self.catalog.draw_id[start:stop]

    def given(self, start: int, stop: int) -> Array:
        """Given labels of rows [start, stop)."""
        return self.catalog.label[start:stop]

    def positions(self, rows: Array) -> Array:
        """Where rows stand among what is read here: as they are."""
        return rows

    def inputs(self) -> list[str]:
        """What a fingerprint of anything that reads them holds."""
        return [
            self.catalog.fingerprint,
            self.embedding.folder,
            *(f"{role} {folder}" for role, folder in self.trajectory_folders.items()),
            *(f"iofm {folder}" for folder in self.iofm_folders),
            *(f"inn {folder}" for folder in self.inn_folders),
            *(f"vote {folder}" for folder in self.vote_folders),
            *(f"influence {folder} {self.standardize}" for folder in self.influence_folders),
            *(f"other {role} {embedding.folder}" for role, embedding in self.others.items()),
            f"simulate {self.simulate_folder}",
            f"aum {self.aum_folder}",
        ]

    def _map(self, folder: str, block: int) -> Mapping[str, Array]:
        return map_arrays(self.catalog.store, f"{folder}/{block_name(block)}.safetensors")

    def read(self, block: int, sources: Sources = LAST) -> BlockScores:
        """The scores of a block of rows, with the belief of some sources."""
        scores = self._trajectory(block)
        vote = self._map(self.vote_folders[-1], block)
        scores["vote"] = vote["vote"]
        iofm = [self._map(folder, block) for folder in self.iofm_folders]
        inn = [self._map(folder, block) for folder in self.inn_folders]
        one_minus: dict[str, Array] = {}
        for name, walked in (("iofm", iofm), ("iofm_last", iofm[-1:]), ("inn", inn[-1:])):
            if walked:
                scores[name] = np.mean([walk["score"] for walk in walked], axis=0)
                one_minus[name] = np.mean([walk["one_minus"] for walk in walked], axis=0)
        facts: dict[str, Array] = {}
        if self.influence_folders:
            found = self.influence(self.influence_folders[-1], block)
            facts |= {"osd_votes": found.pop("osd_votes")} if "osd_votes" in found else {}
            scores |= found
        if self.aum_folder is not None:
            scores |= self._map(f"{self.aum_folder}/rows", block)
        if self.simulate_folder is not None:
            judged = dict(self._map(f"{self.simulate_folder}/rows", block))
            scores["odd"] = judged.pop("odd")
            facts |= judged
        return BlockScores(
            scores={name: np.asarray(scores[name], np.float64) for name in self.names},
            one_minus=one_minus,
            facts=facts,
            belief=self.belief(block, sources),
            num_paths=iofm[-1]["num_paths"] if iofm else None,
            neighbors=vote["neighbors"],
            near_labels=vote["near_labels"],
        )

    @property
    def epochs(self) -> tuple[int, ...]:
        """Snapshots of role `main` whose beliefs there are, ascending."""
        return tuple(sorted(self.belief_folders))

    def belief(self, block: int, sources: Sources = LAST) -> Array:
        """(n, K) the belief of a block of rows, see `BlockScores`."""
        start, stop = block_range(block, self.block_rows, self.num_rows)
        rows = np.arange(start, stop)
        others = (self.others[role].beliefs(rows)[:, :-1] for role in sources.roles)
        return combined([self._belief_of_main(block, rows, sources.epoch), *others])

    def _belief_of_main(self, block: int, rows: Array, epoch: int | None) -> Array:
        walked = self.belief_folders[max(self.belief_folders) if epoch is None else epoch]
        if not walked:
            return self.embedding.beliefs(rows)[:, :-1]
        whole, classes = slice(None), self.catalog.num_classes
        beliefs = [unpack(self._map(folder, block), whole, classes) for folder in walked]
        return np.asarray(np.mean(beliefs, axis=0)[:, :-1])

    def beliefs_of(self, rows: Array, sources: Sources = LAST) -> Array:
        """(R, K) beliefs of some rows, in any order; NaN for -1."""
        found = np.full((len(rows), self.catalog.num_classes), np.nan)
        for block in np.unique(rows[rows >= 0] // self.block_rows):
            here = (rows >= 0) & (rows // self.block_rows == block)
            found[here] = self.belief(int(block), sources)[rows[here] - block * self.block_rows]
        return found

    def belief_of_role(self, role: str, rows: Array) -> Array:
        """(R, K) beliefs of another network for some rows."""
        return self.others[role].beliefs(rows)[:, :-1]

    def neighbors(self, block: int, vote: int = -1) -> Array:
        """(n, 3) the nearest rows of any label of a block of rows, -1 where there are fewer.

        Args:
            block: of rows.
            vote: of the voted snapshots, the last one by default; 0 is the first.
        """
        return self._map(self.vote_folders[vote], block)["neighbors"]

    def influence(self, folder: str, block: int) -> dict[str, Array]:
        """`osm`, `osd` and `osd_votes` of a block of rows at the snapshot of a folder."""
        fitted = map_arrays(self.catalog.store, f"{folder}/fit.safetensors")
        return influence_scores(self._map(f"{folder}/raw", block), fitted, self.standardize)

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
