"""Pairs of rows in memory walked by a network, block by block."""

from __future__ import annotations

from collections.abc import Callable

from rayclean.late import torch
from rayclean.schema import Array
from rayclean.scores.interpolation import walk_block
from rayclean.scores.pairs import Pairs
from rayclean.train.forward import Forward


def add_walks(
    sums: Array,
    num_paths: Array,
    first: int,
    pairs: Pairs,
    inputs: Callable[[Array], torch.Tensor],
    beliefs: Callable[[Array], Array],
    forward: Forward,
    steps: int,
    end_weight: float,
    block_pairs: int,
) -> None:
    """Walks pairs block by block and adds what they give to the rows that list them.

    Args:
        sums: (Q, K + 1) of rows `first`, `first + 1`, ...; added to.
        num_paths: (Q,) of the same rows; added to.
        first: see `sums`.
        pairs: of which these rows list the other ends.
        inputs: rows (R,) to their normalised images (R, 3, S, S).
        beliefs: rows (R,) to their own probabilities (R, K + 1).
        forward: the network.
        steps: H.
        end_weight: of a path's ends.
        block_pairs: pairs whose images are in memory together.
    """
    with forward.running():
        for start in range(0, len(pairs.left), block_pairs):
            block = Pairs(*(column[start : start + block_pairs] for column in pairs))
            size = forward.settings.batch_size
            part, _ = walk_block(block, inputs, beliefs, forward.probabilities, steps, size, end_weight)
            sums[part.rows - first] += part.sums
            num_paths[part.rows - first] += part.num_paths
