"""What the joint model believes of every row as what is learned: each class has its share of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.learn.lesson_jobs import LessonJob
from rayclean.learn.targets import packed_posterior
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL
from rayclean.schema import DROPPED, NO_LABEL, Array
from rayclean.scores.table import ScoreFiles
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.units import block_range, num_blocks


@dataclass(frozen=True)
class Judged:
    """What a run has fitted to its rows, and what it was fitted to.

    Attributes:
        merge: folder of the model.
        files: scores and beliefs of the rows.
    """

    merge: str
    files: ScoreFiles


@dataclass(frozen=True)
class PosteriorLesson(LessonJob):
    """The joint model's posterior as soft targets; what it holds to be none of the classes weighs as much less.

    The table has the largest share alone, so the model is applied again.
    """

    advice: ClassVar[str] = "the model holds all of them to be none of the classes"
    judged: Judged

    def make(self, labels: Array) -> dict[str, Array]:
        """See `packed_posterior`; where people have decided, that is certain."""
        blocks = list(self._blocks())
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _blocks(self) -> Iterator[dict[str, Array]]:
        files = self.judged.files
        fitted = Fitted.from_json(read_json(self.store, f"{self.judged.merge}/{MODEL}.json"))
        for block in range(num_blocks(files.num_rows, files.block_rows)):
            start, stop = block_range(block, files.block_rows, files.num_rows)
            given, known = files.given(start, stop), self._known(start, stop)
            whole = fitted.judge(files.read(block, fitted.sources), given).confirmed(given, known).whole
            if whole is None:
                raise ValueError(f"a joint model expected, found {fitted.name}")
            yield packed_posterior(whole, given)

    def _known(self, start: int, stop: int) -> Array:
        """(stop - start,) what people have said of rows, `NO_LABEL` where nothing, `DROPPED` where no class fits."""
        if self.people is None:
            return np.full(stop - start, NO_LABEL, np.int64)
        said = map_arrays(self.store, self.people)
        labels = np.asarray(said["labels"][start:stop], np.int64)
        return np.where(said["is_verified"][start:stop], np.where(labels < 0, DROPPED, labels), NO_LABEL)
