"""`LabelScorer` in steps: what is done once, and what verified labels change.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rayclean.config import Config
from rayclean.memory.merge import MEMORY, merged, sampled_rows
from rayclean.memory.rows import Samples
from rayclean.merge.blind import fit_blind
from rayclean.merge.evidence import Mixture, best_mixture
from rayclean.merge.models import Fitted
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.block import BlockScores
from tools.cells.honest_data import Rows

COLUMN = "score_"


class Judged(NamedTuple):
    """What rayclean makes of labels.

    Attributes:
        table: `LabelScorer.labels_`.
        summary: `LabelScorer.summary_`.
    """

    table: pa.Table
    summary: dict[str, Any]

    @property
    def right(self) -> Array:
        """(N,) float64 `label_score`."""
        return np.asarray(self.table["label_score"].to_numpy().astype(np.float64))

    @property
    def predicted(self) -> Array:
        """(N,) int64, -1 none of the classes."""
        return np.asarray(self.table["predicted_label"].to_numpy().astype(np.int64))

    @property
    def scores(self) -> dict[str, Array]:
        """(N,) float64 by name."""
        named = [name for name in self.table.column_names if name.startswith(COLUMN)]
        return {name.removeprefix(COLUMN): self.table[name].to_numpy().astype(np.float64) for name in named}


def tree_of(rows: Rows, seed: int, scores: Sequence[str]) -> dict[str, Any]:
    """The config of the scorer with all defaults."""
    return {
        "run": {"dir": MEMORY, "seed": seed},
        "scores": list(scores),
        "data": {"shards": MEMORY, "classes": rows.num_classes},
    }


@dataclass
class InSteps:
    """`LabelScorer` in steps: what is done once, and what verified labels change.

    These change no score and not which beliefs are taken, so that with other verified labels the joint model alone is
    fitted anew, as `fit_out_of_fold` does.

    Attributes:
        sources: beliefs by name, as `best_mixture` takes them.
        reference: likewise.
        base: likewise.
        none: as of `fit_blind`.
    """

    config: Config
    samples: Samples
    fitted: Fitted
    block: BlockScores
    sources: Mapping[str, Array]
    reference: Sequence[str]
    base: float
    none: bool

    @cached_property
    def sampled(self) -> Array:
        """(N,) bool, rows that the model is fitted to."""
        return sampled_rows(self.config, self.samples, self.block.belief.shape[1])

    @cached_property
    def mixture(self) -> Mixture:
        """The beliefs that were taken."""
        few = {name: belief[self.sampled] for name, belief in self.sources.items()}
        found = best_mixture(few, self.samples.labels[self.sampled], self.base, self.reference)
        # No source was left out, and none has seen its labels: such ones are fitted in other ways.
        assert np.allclose(found.again(self.sources), self.block.belief, atol=1e-9)
        return found

    def judge(self, verified: Array) -> Judged:
        """As of `Way`."""
        fitted, keys = self.fitted, [str(row) for row in range(len(verified))]
        if (verified != NO_LABEL).any():
            labels, mixture = self.samples.labels[self.sampled], self.mixture
            model = fit_blind(mixture.belief, labels, mixture.base, self.none, verified[self.sampled])
            fitted = replace(fitted, model=model)
        return Judged(*merged(self.config, self.samples, keys, self.block, fitted, verified))
