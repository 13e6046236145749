"""Rows by features or predictions, and which of them are near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rayclean.neighbors.brute import list_neighbors
from rayclean.neighbors.select import Neighbors, Points
from rayclean.schema import Array
from rayclean.storage.draws import draw_id


@dataclass(frozen=True)
class Samples:
    """Rows with given labels.

    Attributes:
        labels: (N,) int32.
        digests: (N, 2) uint64; equal means equal features.
        draws: (N,) uint64 identities for seeded draws.
    """

    labels: Array
    digests: Array
    draws: Array

    @classmethod
    def make(cls, labels: Array, digests: list[bytes], keys: list[str]) -> Samples:
        """From labels and what identifies each row."""
        draws = [draw_id(key, digest) for key, digest in zip(keys, digests, strict=True)]
        pairs = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        return cls(labels.astype(np.int32), pairs, np.array(draws, np.uint64))


def find_neighbors(samples: Samples, features: Array, num: int) -> Neighbors:
    """Lists of the nearest rows of any label, (N, L): exact, by brute force."""
    rows = np.arange(len(features))
    points = Points(rows, samples.labels, samples.digests, samples.draws, lambda positions: features[positions])
    return list_neighbors(points, rows, num, True, torch.device("cpu"))
