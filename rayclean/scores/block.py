"""All that is known of some rows when their scores are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rayclean.config.score_families import score_of
from rayclean.schema import Array, Score


@dataclass(frozen=True)
class BlockScores:
    """What is known of N rows.

    Attributes:
        scores: name -> (N,) float64, NaN where undefined.
        one_minus: 1 - score without cancellation, for scores in [0, 1] that have it.
        belief: (N, K) path-averaged at one snapshot of role `main`, the mean of IOFM's and INN's, without paths its
            softmax; where further networks are believed, the geometric mean with their softmax.
        facts: raw columns beside the scores, by name; (N,) each.
        num_paths: (N,) same-label neighbours that were found; None without IOFM.
        neighbors: (N, 3) the nearest rows of any label, `NO_ROW` where there are fewer.
        near_labels: (N, L) given labels of the nearest rows of any label, `NO_LABEL` where there are fewer; None where
            they are not known.
        kinds: the scores by name, where a process may not know them: those of families from outside.
    """

    scores: dict[str, Array]
    one_minus: dict[str, Array]
    facts: dict[str, Array]
    belief: Array
    num_paths: Array | None
    neighbors: Array
    near_labels: Array | None = None
    kinds: dict[str, Score] = field(default_factory=dict)

    def kind(self, name: str) -> Score:
        """What one of its scores is."""
        return self.kinds.get(name) or score_of(name)

    def take(self, rows: Array) -> BlockScores:
        """Of some rows: (M,) positions or (N,) bool."""
        return BlockScores(
            scores={name: values[rows] for name, values in self.scores.items()},
            one_minus={name: values[rows] for name, values in self.one_minus.items()},
            facts={name: values[rows] for name, values in self.facts.items()},
            belief=self.belief[rows],
            num_paths=None if self.num_paths is None else self.num_paths[rows],
            neighbors=self.neighbors[rows],
            near_labels=None if self.near_labels is None else self.near_labels[rows],
            kinds=self.kinds,
        )


def joined(blocks: Sequence[BlockScores]) -> BlockScores:
    """The rows of one or more blocks of a run as one block."""

    def by_name(each: Sequence[dict[str, Array]]) -> dict[str, Array]:
        return {name: np.concatenate([values[name] for values in each]) for name in each[0]}

    num_paths = [block.num_paths for block in blocks if block.num_paths is not None]
    near_labels = [block.near_labels for block in blocks if block.near_labels is not None]
    return BlockScores(
        scores=by_name([block.scores for block in blocks]),
        one_minus=by_name([block.one_minus for block in blocks]),
        facts=by_name([block.facts for block in blocks]),
        belief=np.concatenate([block.belief for block in blocks]),
        num_paths=np.concatenate(num_paths) if num_paths else None,
        neighbors=np.concatenate([block.neighbors for block in blocks]),
        near_labels=np.concatenate(near_labels) if near_labels else None,
        kinds=blocks[0].kinds,
    )
