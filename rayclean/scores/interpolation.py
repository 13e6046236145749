"""IOFM and INN: a network's belief in the given label along paths to neighbours (methods.md, section 2).

A path between images a and b has points x_h = ((H-h)/H) a + (h/H) b, h = 0..H. The trapezoid mean of the
network's probabilities along it is, for every class,

    T(a, b) = (1/H) (p(x_0)/2 + p(x_1) + ... + p(x_{H-1}) + p(x_H)/2).

The ends' probabilities are known from the embedding, so a path costs H-1 forwards; T(a, b) = T(b, a), so a pair
is walked once and serves both ends. IOFM's neighbours have the row's label, INN's any. The midpoint score [INN,
section 3.2] is the same with H = 2 and ends of weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from rayclean.late import torch
from rayclean.schema import Array
from rayclean.scores.pairs import LEFT_LISTS_RIGHT, RIGHT_LISTS_LEFT, Pairs

TRAPEZOID, INTERIOR = 0.5, 0.0  # weight of a path's ends

Probabilities: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"  # (B, 3, S, S) -> (B, K)


def interior_sums(
    probabilities: Probabilities, images: torch.Tensor, left: Array, right: Array, steps: int, batch_size: int
) -> Array:
    """Sum of the network's probabilities over the interior points of each path.

    Exactly P (H-1) images go through the network, `batch_size` at a time; the last batch is what is left.

    Args:
        probabilities: the network with its softmax.
        images: (U, 3, S, S) normalised distinct images.
        left: (P,) index of each path's start in `images`.
        right: (P,) index of each path's end.
        steps: H, at least 2.
        batch_size: images per forward.

    Returns:
        (P, K) float64.
    """
    num_interior = steps - 1
    # Rows of channels_last images: a gather then copies whole lines, and the result is channels_last again.
    flat = images.permute(0, 2, 3, 1).reshape(len(images), -1)
    shape = (-1, *images.shape[2:], images.shape[1])
    ends = torch.from_numpy(np.stack([left, right])).to(images.device)
    # h / H is rounded once, from float64 to whatever the images are in.
    share = (torch.arange(1, steps, dtype=torch.float64) / steps).to(flat)[:, None]
    # The fewest pairs whose points fill whole batches.
    num_pairs = batch_size // math.gcd(batch_size, num_interior)
    outputs = []
    for first in range(0, len(left), num_pairs):
        here = ends[:, first : first + num_pairs]
        start, end = flat.index_select(0, here.flatten()).view(2, here.shape[1], 1, -1)
        mixed = torch.lerp(start, end, share).view(shape).permute(0, 3, 1, 2)
        outputs += [probabilities(batch) for batch in torch.split(mixed, batch_size)]
    values = torch.cat(outputs).cpu().numpy().astype(np.float64)
    result: Array = values.reshape(len(left), num_interior, -1).sum(axis=1)
    return result


class PartialSums(NamedTuple):
    """What a block of pairs adds to the rows that list their neighbours in it.

    Attributes:
        rows: (R,) int64, ascending.
        sums: (R, K) float64, over the row's listed pairs of the block: the interior points' probabilities plus
            the far end's times its weight.
        num_paths: (R,) int32, listed pairs of the row in the block.
    """

    rows: Array
    sums: Array
    num_paths: Array


def partial_sums(
    pairs: Pairs, interior: Array, at_left: Array, at_right: Array, end_weight: float = TRAPEZOID
) -> PartialSums:
    """Adds each path to the rows that list its other end.

    Args:
        pairs: P pairs.
        interior: (P, K) sums over interior points.
        at_left: (P, K) probabilities at the left ends.
        at_right: (P, K) probabilities at the right ends.
        end_weight: 0.5 for the trapezoid mean, 0 for the interior alone.
    """
    to_left = np.flatnonzero(pairs.listed & LEFT_LISTS_RIGHT)
    to_right = np.flatnonzero(pairs.listed & RIGHT_LISTS_LEFT)
    target = np.concatenate([pairs.left[to_left], pairs.right[to_right]])
    far_end = np.concatenate([at_right[to_left], at_left[to_right]])
    # The near end is the row's own belief, the same on all of its paths: `path_means` adds it once.
    value = np.concatenate([interior[to_left], interior[to_right]]) + end_weight * far_end
    rows, index = np.unique(target, return_inverse=True)
    sums = np.zeros((len(rows), interior.shape[1]))
    np.add.at(sums, index, value)
    return PartialSums(rows, sums, np.bincount(index, minlength=len(rows)).astype(np.int32))


def walk_block(
    pairs: Pairs,
    inputs: Callable[[Array], torch.Tensor],
    beliefs: Callable[[Array], Array],
    probabilities: Probabilities,
    steps: int,
    batch_size: int,
    end_weight: float = TRAPEZOID,
) -> tuple[PartialSums, int]:
    """Walks a block of pairs; each of its images is read once.

    Args:
        pairs: P pairs.
        inputs: rows (R,) to their normalised images (R, 3, S, S).
        beliefs: rows (R,) to their own probabilities (R, K + 1), the last column what a file dropped.
        probabilities: the network with its softmax.
        steps: H.
        batch_size: images per forward.
        end_weight: as in `partial_sums`.

    Returns:
        What the block adds to rows, (R, K + 1) sums, and its distinct images.
    """
    rows, index = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = index[: len(pairs.left)], index[len(pairs.left) :]
    interior = interior_sums(probabilities, inputs(rows), left, right, steps, batch_size)
    ends = beliefs(rows)
    complete = np.pad(interior, ((0, 0), (0, 1)))  # nothing was dropped of what is computed here
    return partial_sums(pairs, complete, ends[left], ends[right], end_weight), len(rows)


class PathMeans(NamedTuple):
    """IOFM or INN of a block of rows at one snapshot.

    Attributes:
        belief: (N, K) float64, the mean over the row's paths of T for every class; rows sum to 1. A column after
            the classes, for what files dropped, is carried along.
        score: (N,) float64, the belief in the given label: the papers' s_i.
        one_minus: (N,) float64, 1 - score without cancellation.
    """

    belief: Array
    score: Array
    one_minus: Array


def path_means(
    own: Array, sums: Array, num_paths: Array, steps: int, labels: Array, end_weight: float = TRAPEZOID
) -> PathMeans:
    """Finishes the means of rows [IOFM, definition of s_i].

    A row without paths (no other row of its label, or only exact copies) keeps its own probabilities: an empty
    path [our choice].

    Args:
        own: (N, K) probabilities of the rows themselves.
        sums: (N, K) sums over all partial sums of the row.
        num_paths: (N,) its paths, L or fewer.
        steps: H.
        labels: (N,) given labels.
        end_weight: as in `partial_sums`.
    """
    paths = np.maximum(num_paths, 1)[:, None]
    # The weights of a path's points: H with the trapezoid's halves, H - 1 for the interior alone.
    total = steps - 1 + 2 * end_weight
    belief = np.where(num_paths[:, None] > 0, (end_weight * own + sums / paths) / total, own)
    at_label = np.arange(len(belief)), labels
    score = belief[at_label]
    # The sum of the others, since 1 - score would be 0 for all rows that are sure to float64.
    others = belief.copy()
    others[at_label] = 0
    return PathMeans(belief, score, others.sum(axis=1))
