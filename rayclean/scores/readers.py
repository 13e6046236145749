"""How the scores of our families are read from what their jobs have published."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rayclean.config import MAIN
from rayclean.embed.table import Embedding
from rayclean.schema import Array
from rayclean.scores.family import BlockFiles, Values
from rayclean.scores.influence_scores import influence_scores
from rayclean.scores.influence_votes import Standardize
from rayclean.scores.simulated_loss import odd_score
from rayclean.scores.trajectory import RunningTrajectory
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, num_blocks
from rayclean.train.trajectories import read_trajectory


@dataclass(frozen=True)
class Trained:
    """A training whose trajectories there are: its folder, and its epochs."""

    folder: str
    epochs: int

    def epoch(self, store: Store, epoch: int, num_blocks: int) -> tuple[Array, Array, Array]:
        """Loss, margin and whether another class was predicted, of all rows after an epoch, (N,) each."""
        pieces = [read_trajectory(store, self.folder, epoch, block) for block in range(num_blocks)]
        loss, margin, wrong = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return loss, margin, wrong


@dataclass(frozen=True)
class TrajectoryReader:
    """The trajectory scores of all roles; of role `main` without epochs, those of its snapshot.

    Attributes:
        embedding: of role `main` at its last snapshot.
        folders: of the scores, by role.
        trained: by role.
    """

    embedding: Embedding
    folders: Mapping[str, str]
    trained: Mapping[str, Trained]

    def inputs(self) -> list[str]:
        """The folders of the scores, each with its role."""
        return [f"{role} {folder}" for role, folder in self.folders.items()]

    def read(self, block: int) -> Values:
        """The scores as of the last epoch."""
        scores: dict[str, Array] = {}
        if MAIN not in self.folders:
            embedded = self.embedding.block(block)
            scores |= {"loss": -embedded["loss"], "margin": embedded["margin"]}
        for role, folder in self.folders.items():
            found = map_arrays(self.embedding.store, f"{folder}/{block_name(block)}.safetensors")
            scores |= {_of_role(name, role): values for name, values in found.items()}
        return Values(scores)

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """As of each epoch of each role."""
        blocks = num_blocks(num_rows, self.embedding.block_rows)
        for role in self.folders:
            running, trained = RunningTrajectory(num_rows), self.trained[role]
            for epoch in range(1, trained.epochs + 1):
                running.add(*trained.epoch(self.embedding.store, epoch, blocks))
                yield epoch, {_of_role(name, role): values for name, values in running.scores().items()}


def _of_role(name: str, role: str) -> str:
    return name if role == MAIN else f"{name}_{role}"


@dataclass(frozen=True)
class WalkReader:
    """IOFM, the mean over its snapshots, and INN, at its last one.

    Attributes:
        iofm: of its interpolation scores; their folders may be none.
        inn: likewise.
    """

    iofm: BlockFiles
    inn: BlockFiles

    def inputs(self) -> list[str]:
        """The folders of both kinds of paths."""
        return [*self.iofm.inputs(), *self.inn.inputs()]

    def read(self, block: int) -> Values:
        """With `num_paths` (n,) among the facts, where IOFM is there."""
        iofm = [self.iofm.arrays(folder, block) for folder in self.iofm.folders.values()]
        inn = [self.inn.arrays(folder, block) for folder in self.inn.folders.values()]
        scores, one_minus = {}, {}
        for name, walked in (("iofm", iofm), ("iofm_last", iofm[-1:]), ("inn", inn[-1:])):
            if walked:
                scores[name] = np.mean([walk["score"] for walk in walked], axis=0)
                one_minus[name] = np.mean([walk["one_minus"] for walk in walked], axis=0)
        return Values(scores, one_minus, {"num_paths": iofm[-1]["num_paths"]} if iofm else {})

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """As of each snapshot: IOFM is the mean over those up to then."""
        total = np.zeros(num_rows)
        for count, (epoch, folder) in enumerate(self.iofm.folders.items(), start=1):
            found = self.iofm.column(folder, "score", num_rows)
            total += found
            yield epoch, {"iofm_last": found, "iofm": total / count}
        for epoch, folder in self.inn.folders.items():
            yield epoch, {"inn": self.inn.column(folder, "score", num_rows)}


@dataclass(frozen=True)
class InfluenceReader:
    """OSM and OSD, standardized as they are read.

    Attributes:
        folders: by epoch, ascending; at least one.
        standardize: over what OSD's z-scores run.
    """

    store: Store
    folders: Mapping[int, str]
    standardize: Standardize
    block_rows: int

    def inputs(self) -> list[str]:
        """The folders, and how they are read."""
        return [f"influence {folder} {self.standardize}" for folder in self.folders.values()]

    def read(self, block: int) -> Values:
        """OSM and OSD as of the last snapshot."""
        scores = self._read(self.folders[max(self.folders)], block)
        return Values(scores, {}, {"osd_votes": scores.pop("osd_votes")} if "osd_votes" in scores else {})

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """OSM and OSD as of each snapshot."""
        for epoch, folder in self.folders.items():
            found = [self._read(folder, block) for block in range(num_blocks(num_rows, self.block_rows))]
            names = found[0].keys() - {"osd_votes"}
            yield epoch, {name: np.concatenate([each[name] for each in found]) for name in names}

    def _read(self, folder: str, block: int) -> dict[str, Array]:
        fitted = map_arrays(self.store, f"{folder}/fit.safetensors")
        raw = map_arrays(self.store, f"{folder}/raw/{block_name(block)}.safetensors")
        return influence_scores(raw, fitted, self.standardize)


@dataclass(frozen=True)
class OutOfFoldReader:
    """Loss and margin by heads on features that have not seen the row's label.

    Attributes:
        judged: at the last snapshot.
        folder: of what blind heads make of the rows at those before.
        epochs: of these.
    """

    judged: BlockFiles
    folder: str
    epochs: tuple[int, ...]

    def inputs(self) -> list[str]:
        """The folder of the last snapshot's values."""
        return self.judged.inputs()

    def read(self, block: int) -> Values:
        """At the last snapshot."""
        return self.judged.read(block)

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Loss and margin as of each snapshot, the last one included."""
        trained, blocks = Trained(self.folder, len(self.epochs)), num_blocks(num_rows, self.judged.block_rows)
        for epoch in self.epochs:
            loss, margin, _ = trained.epoch(self.judged.store, epoch, blocks)
            yield epoch, {"loss_oof": -loss, "margin_oof": margin}
        yield from self.judged.courses(num_rows)


@dataclass(frozen=True)
class SimulatedReader:
    """ODD.

    Attributes:
        judged: its scores and facts.
        trained: whose losses it averages.
        average: over how many epochs.
    """

    judged: BlockFiles
    trained: Trained
    average: int

    def inputs(self) -> list[str]:
        """The folder of ODD's columns."""
        return self.judged.inputs()

    def read(self, block: int) -> Values:
        """At its epoch."""
        return self.judged.read(block)

    def courses(self, num_rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """As if each epoch were its own: the mean loss of the last epochs up to then."""
        blocks = num_blocks(num_rows, self.judged.block_rows)
        losses: deque[Array] = deque(maxlen=self.average)
        for epoch in range(1, self.trained.epochs + 1):
            losses.append(self.trained.epoch(self.judged.store, epoch, blocks)[0])
            yield epoch, {"odd": odd_score(np.stack(losses))}
