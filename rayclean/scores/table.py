"""All scores of a block of rows, read from the files of the families, and the beliefs beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.beliefs import unpack
from rayclean.embed.heads_stage import BlindBeliefs
from rayclean.embed.table import Embedding
from rayclean.schema import Array, Score
from rayclean.scores.blind import NEIGHBORS, SHARE_NEIGHBORS, mixed
from rayclean.scores.block import BlockScores
from rayclean.scores.family import Reader
from rayclean.scores.sources import LAST, Sources, combined
from rayclean.scores.vote import neighbor_shares
from rayclean.storage.contents import map_arrays
from rayclean.storage.units import block_name, block_range


@dataclass(frozen=True)
class BlindFiles:
    """Where such beliefs lie.

    Attributes:
        heads: of the blind heads, one per weight decay.
        vote_folder: the labels of the nearest rows of each row; None where these are not to be believed.
    """

    heads: BlindBeliefs
    vote_folder: str | None

    def inputs(self) -> list[str]:
        """What a fingerprint of anything that reads them holds."""
        return [f"blind {self.heads.folder}", f"near {self.vote_folder}"]

    def read(self, block: int) -> dict[str, Array]:
        """By name (n, K) float64 beliefs of a block of rows."""
        store, classes = self.heads.catalog.store, self.heads.catalog.num_classes
        heads = self.heads.read(block)
        if self.vote_folder is None:
            return heads
        near = map_arrays(store, f"{self.vote_folder}/{block_name(block)}.safetensors")["near_labels"]
        return {**heads, NEIGHBORS: neighbor_shares(near[:, :SHARE_NEIGHBORS], classes)}


@dataclass(frozen=True)
class ScoreFiles:
    """Where a run's scores and beliefs lie.

    Attributes:
        embedding: of role `main` at its last snapshot.
        scores: those that the run wants, in the table's order.
        readers: of the families that give them.
        vote_folders: the nearest rows of each row, in order of the epochs; the last snapshot's is always there.
        belief_folders: of the interpolation scores of each snapshot of role `main` that has any, and of the last
            one, by epoch; none of these: the belief is the softmax.
        others: embeddings of further networks at their last snapshots, whose beliefs may be taken.
        blind: beliefs that have not seen the labels, on features; None without.
    """

    catalog: Catalog
    embedding: Embedding
    scores: tuple[Score, ...]
    readers: tuple[Reader, ...]
    vote_folders: tuple[str, ...]
    belief_folders: dict[int, tuple[str, ...]]
    others: dict[str, Embedding] = field(default_factory=dict)
    blind: BlindFiles | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores, in the table's order."""
        return tuple(score.name for score in self.scores)

    @property
    def of_rows(self) -> ScoreFiles:
        """The same of rows, as these are; `ClipFiles` has those of its frames."""
        return self

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
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
            *(mark for reader in self.readers for mark in reader.inputs()),
            *(f"other {role} {embedding.folder}" for role, embedding in self.others.items()),
            *(self.blind.inputs() if self.blind is not None else ()),
        ]

    def _map(self, folder: str, block: int) -> Mapping[str, Array]:
        return map_arrays(self.catalog.store, f"{folder}/{block_name(block)}.safetensors")

    def read(self, block: int, sources: Sources = LAST) -> BlockScores:
        """The scores of a block of rows, with the belief of some sources."""
        scores: dict[str, Array] = {}
        one_minus: dict[str, Array] = {}
        facts: dict[str, Array] = {}
        for reader in self.readers:
            found = reader.read(block)
            scores |= found.scores
            one_minus |= found.one_minus
            facts |= found.facts
        near = self._map(self.vote_folders[-1], block)
        return BlockScores(
            scores={name: np.asarray(scores[name], np.float64) for name in self.names},
            one_minus=one_minus,
            num_paths=facts.pop("num_paths", None),
            facts=facts,
            belief=self.belief(block, sources),
            neighbors=near["neighbors"],
            near_labels=near["near_labels"],
            kinds={score.name: score for score in self.scores},
        )

    @property
    def epochs(self) -> tuple[int, ...]:
        """Snapshots of role `main` whose beliefs there are, ascending."""
        return tuple(sorted(self.belief_folders))

    def belief(self, block: int, sources: Sources = LAST) -> Array:
        """(n, K) the belief of a block of rows, see `BlockScores`; on features that of blind heads."""
        if self.blind is not None:
            found = self.blind.read(block)
            heads = [found[name] for name in self.blind.heads.names]
            return mixed(found, sources) if sources.blind else combined(heads)
        start, stop = block_range(block, self.block_rows, self.num_rows)
        rows = np.arange(start, stop)
        # The last column is what a file of beliefs dropped, which is no class.
        others = (self.others[role].beliefs(rows)[:, :-1] for role in sources.roles)
        return combined([self._belief_of_main(block, rows, sources.epoch), *others])

    def _belief_of_main(self, block: int, rows: Array, epoch: int | None) -> Array:
        walked = self.belief_folders[max(self.belief_folders) if epoch is None else epoch]
        if not walked:
            return self.embedding.beliefs(rows)[:, :-1]
        whole, classes = slice(None), self.catalog.num_classes
        beliefs = [unpack(self._map(folder, block), whole, classes) for folder in walked]
        return np.asarray(np.mean(beliefs, axis=0)[:, :-1])

    def blind_beliefs(self, block: int) -> dict[str, Array]:
        """By name (n, K) beliefs of a block of rows that have not seen its labels; none but on features."""
        return {} if self.blind is None else self.blind.read(block)

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
