"""All that is known of some rows when their scores are merged."""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.arrays import Array


@dataclass(frozen=True)
class BlockScores:
    """What is known of N rows.

    Attributes:
        scores: name -> (N,) float64, NaN where undefined.
        one_minus: 1 - score without cancellation, for scores in [0, 1] that have it.
        belief: (N, K) path-averaged at the last snapshot, the mean of IOFM's and INN's; without paths the last softmax.
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

    def take(self, rows: Array) -> BlockScores:
        """Of some rows: (M,) positions or (N,) bool."""
        return BlockScores(
            scores={name: values[rows] for name, values in self.scores.items()},
            one_minus={name: values[rows] for name, values in self.one_minus.items()},
            facts={name: values[rows] for name, values in self.facts.items()},
            belief=self.belief[rows],
            num_paths=None if self.num_paths is None else self.num_paths[rows],
            neighbors=self.neighbors[rows],
        )
