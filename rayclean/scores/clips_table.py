"""The scores of clips: means of their frames' (`data.group`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.schema import NO_ROW, Array
from rayclean.scores.block import BlockScores
from rayclean.scores.sources import LAST, Sources
from rayclean.scores.table import ScoreFiles
from rayclean.storage.units import block_range


@dataclass(frozen=True)
class ClipFiles:
    """All scores of a block of clips, read as `ScoreFiles` reads those of rows.

    A clip's loss is the mean of its frames' losses (Influential Rank, 4.4); the other scores and the beliefs follow
    it [our choice]. Where influence goes by the mean gradient, all frames have their clip's `osm` and `osd` already.

    Attributes:
        files: of the frames.
    """

    files: ScoreFiles

    @property
    def catalog(self) -> Catalog:
        """The catalog of the frames."""
        return self.files.catalog

    @property
    def of_rows(self) -> ScoreFiles:
        """The scores of the frames."""
        return self.files

    @property
    def num_rows(self) -> int:
        """C, the clips."""
        return len(self.catalog.clip_starts) - 1

    @property
    def block_rows(self) -> int:
        """Clips of a block."""
        return self.files.block_rows

    def draw_ids(self, start: int, stop: int) -> Array:
        """Identities of clips [start, stop) for seeded draws, uint64."""
        ids: Array = self.catalog.clip_id[self.catalog.first_of_clip(start, stop)]
        return ids

    def given(self, start: int, stop: int) -> Array:
        """Given labels of clips [start, stop)."""
        labels: Array = self.catalog.label[self.catalog.first_of_clip(start, stop)]
        return labels

    def positions(self, rows: Array) -> Array:
        """The clips that rows are frames of, (R,)."""
        clips: Array = self.catalog.clip[rows]
        return clips

    def read(self, block: int, sources: Sources = LAST) -> BlockScores:
        """The scores of a block of clips, with the belief of some sources.

        A score that no frame of a clip has is NaN.
        """
        start, stop = block_range(block, self.block_rows, self.num_rows)
        frames, clip_of_frame = self.catalog.frames_of(np.arange(start, stop))
        parts, order = [], []
        for rows_block in np.unique(frames // self.files.block_rows):
            here = np.flatnonzero(frames // self.files.block_rows == rows_block)
            first = rows_block * self.files.block_rows
            parts.append(self.files.read(int(rows_block), sources).take(frames[here] - first))
            order.append(clip_of_frame[here])
        clips, num_clips = np.concatenate(order), stop - start

        def mean(pieces: list[Array]) -> Array:
            return _known_means(np.concatenate(pieces), clips, num_clips)

        return BlockScores(
            scores={name: mean([part.scores[name] for part in parts]) for name in parts[0].scores},
            one_minus={name: mean([part.one_minus[name] for part in parts]) for name in parts[0].one_minus},
            facts={},
            belief=mean([part.belief for part in parts]),
            num_paths=None,
            neighbors=np.full((num_clips, 0), NO_ROW),
            kinds=parts[0].kinds,
        )

    def blind_beliefs(self, block: int) -> dict[str, Array]:
        """By name (n, K) means of the frames' beliefs that have not seen the labels, of a block of clips."""
        if self.files.blind is None:
            return {}
        start, stop = block_range(block, self.block_rows, self.num_rows)
        frames, clip_of_frame = self.catalog.frames_of(np.arange(start, stop))
        found: dict[str, list[Array]] = {}
        order = []
        for rows_block in np.unique(frames // self.files.block_rows):
            here = np.flatnonzero(frames // self.files.block_rows == rows_block)
            order.append(clip_of_frame[here])
            for name, belief in self.files.blind_beliefs(int(rows_block)).items():
                found.setdefault(name, []).append(belief[frames[here] - rows_block * self.files.block_rows])
        clips = np.concatenate(order)
        return {name: _known_means(np.concatenate(pieces), clips, stop - start) for name, pieces in found.items()}


def _known_means(values: Array, clips: Array, num_clips: int) -> Array:
    """Mean over the frames of each clip that have a value, (C, ...) float64; NaN where none has."""
    known = ~np.isnan(values)
    sums = np.zeros((num_clips, *values.shape[1:]))
    counts = np.zeros_like(sums)
    np.add.at(sums, clips, np.where(known, values, 0.0))
    np.add.at(counts, clips, known)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
