"""The scores of all rows by a network while it is trained: loss, IOFM or INN, shared out over the ranks.

Each rank forwards its share of the rows; for IOFM and INN features (float16) and logits of all rows then meet on every
rank, which lists the neighbours of its own rows, exactly, and walks to them; a path between rows of two ranks is walked
by both, where both list it. No matrix of rows by rows is held: a rank has R (2 d + 4 K) + Q (8 K + 16 L) bytes beside
bounded blocks, and 8 R for the loss.

Letters: N rows, R rows that are scored, Q of them on this rank, K classes, d features, L neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from rayclean.embed.beliefs import softmax, with_rest
from rayclean.errors import UnitError
from rayclean.learn.dividemix_settings import DivideMixSettings, Source
from rayclean.neighbors.brute import list_neighbors
from rayclean.neighbors.select import Points
from rayclean.schema import NO_ROW, Array
from rayclean.scores.feature_paths import feature_paths
from rayclean.scores.interpolation import TRAPEZOID, path_means
from rayclean.scores.pairs import undirected_pairs
from rayclean.scores.walk import add_walks
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank
from rayclean.train.models import Network
from rayclean.train.sample_losses import sample_losses
from rayclean.train.spec import NetworkSpec

BLOCK_VALUES = 2**25  # float32 values of the images that are in memory together: 128 MiB


@dataclass
class NearLists:
    """Lists of neighbours of the last scoring, which hold on where all networks have the same features.

    Attributes:
        is_kept: whether they have.
        rows: that were scored.
        lists: (Q, L) of this rank's.
    """

    is_kept: bool
    rows: Array | None = None
    lists: Array | None = None

    def of(self, rows: Array, find: Callable[[], Array]) -> Array:
        """The lists of some rows, found now where they are not those of the last scoring."""
        if self.lists is None or self.rows is None or not (self.is_kept and np.array_equal(self.rows, rows)):
            self.rows, self.lists = rows, find()
        return self.lists


def rescore(
    settings: DivideMixSettings,
    spec: NetworkSpec,
    network: Network,
    source: Source,
    rows: Array,
    rank: Rank,
    near: NearLists | None = None,
) -> Array:
    """The score of some rows by a network as it is; every rank gets all of them.

    `loss`: cross-entropy with the given label, lower = cleaner. `iofm`, `inn`: the belief in the given label on the
    paths to the nearest of these rows, in [0, 1], higher = cleaner, both by the network's own features and at this
    epoch alone. Images as they are, evaluation mode.

    Args:
        settings: which score.
        spec: what the network is.
        network: put into evaluation mode; not changed otherwise.
        source: labels and images.
        rows: (R,) rows, ascending.
        rank: this process.
        near: lists of an earlier scoring by networks of this kind, which it keeps; None where there are none.

    Returns:
        (R,) float32.

    Raises:
        UnitError: the network's output is not finite.
    """
    forward = Forward(network, spec, settings.forward)
    mine = share_of(len(rows), rank)
    scores = np.empty(len(mine), np.float32)
    if settings.section.score == "loss":
        for block in _blocks(forward, len(mine)):
            here = rows[mine[block]]
            logits = _finite(forward.logits(forward.normalized(source.images(here))), settings)
            scores[block] = sample_losses(logits, source.labels[here])[0]
    else:
        _interpolate(settings, forward, source, rows, rank, near or NearLists(False), scores)
    return gathered(scores, len(rows), rank, forward.device)


def share_of(num_rows: int, rank: Rank) -> Array:
    """Positions of the rank's share, ascending; all shares together are 0..num_rows-1 in order."""
    return np.array_split(np.arange(num_rows), rank.count)[rank.index]


def gathered(mine: Array, num_rows: int, rank: Rank, device: torch.device) -> Array:
    """What all ranks have of their shares, (R, ...), on every rank.

    Args:
        mine: (Q, ...) of `share_of`.
        num_rows: R.
        rank: this process.
        device: that the ranks' network of messages wants: `cuda` for NCCL.
    """
    if rank.count == 1:
        return mine
    longest = -(-num_rows // rank.count)
    padded = torch.from_numpy(np.concatenate([mine, np.zeros_like(mine, shape=(longest - len(mine), *mine.shape[1:]))]))
    parts = [torch.empty_like(padded, device=device) for _ in range(rank.count)]
    dist.all_gather(parts, padded.to(device))
    sizes = [len(share_of(num_rows, Rank(index, rank.count))) for index in range(rank.count)]
    return np.concatenate([part[:size].cpu().numpy() for part, size in zip(parts, sizes, strict=True)])


def _interpolate(
    settings: DivideMixSettings,
    forward: Forward,
    source: Source,
    rows: Array,
    rank: Rank,
    near: NearLists,
    scores: Array,
) -> None:
    """Fills in `scores`, (Q,), IOFM or INN of this rank's rows; a last layer alone needs the ends of paths alone."""
    mine, network = share_of(len(rows), rank), forward.network
    features = np.empty((len(mine), network.feature_dim), np.float16)
    logits = np.empty((len(mine), network.num_classes), np.float32)
    blocks = _blocks(forward, len(mine))
    for block in blocks:
        found = forward.embed(forward.normalized(source.images(rows[mine[block]])))
        features[block], logits[block] = found[0].cpu().numpy(), _finite(found[1], settings)
    features = gathered(features, len(rows), rank, forward.device)
    logits = gathered(logits, len(rows), rank, forward.device)

    lists = near.of(rows, lambda: _near_rows(settings, forward, source, rows, mine, features))
    if forward.spec.is_linear:
        labels = source.labels[rows[mine]]
        scores[:] = feature_paths(logits[mine], logits, lists, settings.walks.steps, labels).score
        return

    def own(positions: Array) -> Array:
        return with_rest(softmax(logits[positions]))

    sums, num_paths = np.zeros((len(mine), network.num_classes + 1)), np.zeros(len(mine), np.int64)
    add_walks(
        sums,
        num_paths,
        int(mine[0]) if len(mine) else 0,
        undirected_pairs(mine, lists),
        lambda positions: forward.normalized(source.images(rows[positions])),
        own,
        forward,
        settings.walks.steps,
        TRAPEZOID,
        max(1, BLOCK_VALUES // (2 * forward.spec.num_values)),  # two ends
    )
    for block in blocks:
        here = mine[block]
        labels = source.labels[rows[here]]
        scores[block] = path_means(own(here), sums[block], num_paths[block], settings.walks.steps, labels).score


def _near_rows(
    settings: DivideMixSettings, forward: Forward, source: Source, rows: Array, mine: Array, features: Array
) -> Array:
    """(Q, L) positions among the rows of the nearest ones of each of `mine`, `NO_ROW` where there are fewer."""
    points = Points(rows, source.labels, source.digests, source.draws, lambda positions: features[positions])
    lists = list_neighbors(points, mine, settings.walks.num, settings.section.any_label, forward.device).rows
    return np.where(lists >= 0, np.searchsorted(rows, lists), NO_ROW)


def _blocks(forward: Forward, num_rows: int) -> list[slice]:
    """Rows whose images are in memory together: whole batches, since a short one costs as much."""
    batch = forward.settings.batch_size
    size = batch * max(1, BLOCK_VALUES // (forward.spec.num_values * batch))
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _finite(logits: torch.Tensor, settings: DivideMixSettings) -> Array:
    found: Array = logits.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise UnitError(
            "training diverged: a network's output is not finite; lower learn.dividemix.lr "
            f"({settings.section.lr:g}) or set train.precision=float32"
        )
    return found
