"""The stages of a run on arrays in memory, after training: embed, find neighbours, walk. No Ray, files or FAISS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from rayclean.embed.beliefs import softmax, with_rest
from rayclean.neighbors.brute import list_neighbors
from rayclean.neighbors.select import Neighbors, Points
from rayclean.schema import Array
from rayclean.scores.interpolation import PathMeans, path_means
from rayclean.scores.pairs import undirected_pairs
from rayclean.scores.walk import add_walks
from rayclean.storage.draws import draw_id
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.loop import State
from rayclean.train.models import Network
from rayclean.train.spec import NetworkSpec

Trajectory = tuple[Array, Array, Array]  # loss, margin, wrong of all rows after an epoch


@dataclass(frozen=True)
class Samples:
    """Images and their given labels.

    Attributes:
        images: (N, size, size, 3) uint8.
        labels: (N,) int32.
        digests: (N, 2) uint64; equal means equal pixels.
        draws: (N,) uint64 identities for seeded draws.
    """

    images: Array
    labels: Array
    digests: Array
    draws: Array

    @classmethod
    def make(cls, images: Array, labels: Array, digests: list[bytes], keys: list[str]) -> Samples:
        """From images, labels and what identifies each sample."""
        draws = [draw_id(key, digest) for key, digest in zip(keys, digests, strict=True)]
        pairs = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        return cls(images, labels.astype(np.int32), pairs, np.array(draws, np.uint64))

    @classmethod
    def without_images(cls, labels: Array, digests: list[bytes], keys: list[str]) -> Samples:
        """From labels and what identifies each sample alone."""
        return cls.make(np.zeros((len(labels), 0, 0, 3), np.uint8), labels, digests, keys)


class Embedded(NamedTuple):
    """All rows at a snapshot: (N, d) float16 features and (N, K) float32 logits."""

    features: Array
    logits: Array


@dataclass
class Training:
    """What training has given so far: all that must be kept to score by it, or to go on with it.

    Attributes:
        trajectories: an entry an epoch.
        weights: by epoch, of the epochs that are kept.
        state: what training goes on from; None before the first epoch, and not needed after the last.
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    weights: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    state: State | None = None


@dataclass
class MemoryRole:
    """A trained role.

    Attributes:
        labels: what it was trained on.
        training: what came of it.
        embedded: by epoch, of those that were asked for.
    """

    spec: NetworkSpec
    forward: ForwardSettings
    labels: Array
    training: Training
    embedded: dict[int, Embedded] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The epoch of the last snapshot."""
        return max(self.training.weights)

    def network(self, epoch: int) -> Network:
        """The network of a snapshot."""
        network = self.spec.build()
        network.load_state_dict(self.training.weights[epoch])
        return network.eval()

    def embed(self, samples: Samples, epoch: int, block_rows: int) -> Embedded:
        """What a snapshot makes of samples."""
        forward = Forward(self.network(epoch), self.spec, self.forward)
        found = []
        for start in range(0, len(samples.images), block_rows):
            block = samples.images[start : start + block_rows]
            found.append([part.cpu().numpy() for part in forward.embed(forward.normalized(block))])
        features, logits = (np.concatenate(column) for column in zip(*found, strict=True))
        return Embedded(features.astype(np.float16), logits)


def find_neighbors(samples: Samples, features: Array, num: int, any_label: bool) -> Neighbors:
    """Lists of the nearest rows, (N, L): exact, by brute force."""
    rows = np.arange(len(features))
    points = Points(rows, samples.labels, samples.digests, samples.draws, lambda positions: features[positions])
    return list_neighbors(points, rows, num, any_label, torch.device("cpu"))


def walk_paths(
    samples: Samples,
    role: MemoryRole,
    epoch: int,
    embedded: Embedded,
    lists: Array,
    steps: int,
    end_weight: float,
    block_pairs: int,
) -> tuple[PathMeans, Array]:
    """IOFM or INN of all rows at a snapshot, and how many paths each has.

    Args:
        samples: the rows.
        role: whose network walks.
        epoch: at which snapshot.
        embedded: of that snapshot.
        lists: (N, L) neighbours.
        steps: H.
        end_weight: of a path's ends.
        block_pairs: pairs whose images are in memory together.
    """
    forward = Forward(role.network(epoch), role.spec, role.forward)
    own = with_rest(softmax(embedded.logits))
    sums, num_paths = np.zeros_like(own), np.zeros(len(own), np.int64)
    add_walks(
        sums,
        num_paths,
        0,
        undirected_pairs(np.arange(len(lists)), lists),
        lambda rows: forward.normalized(samples.images[rows]),
        lambda rows: own[rows],
        forward,
        steps,
        end_weight,
        block_pairs,
    )
    return path_means(own, sums, num_paths, steps, samples.labels, end_weight), num_paths
