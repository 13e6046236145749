"""Seeded draws that belong to a sample, not to its row: another sharding of the same samples draws the same.

A sample's draw id is a hash of its key and pixel digest; a draw is a hash of (seed, salt, draw id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]


def draw_id(key: str, digest: bytes) -> int:
    """Return the 64-bit identity of a sample for draws: BLAKE2b of its key and pixel digest.

    The key's length goes first, so that no other split of the same bytes gives the same id. A key from a tar
    may hold lone surrogates, for bytes that are not UTF-8.
    """
    name = key.encode("utf-8", "surrogatepass")
    content = len(name).to_bytes(8, "little") + name + digest
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def pixel_digest(pixels: NDArray[Any]) -> bytes:
    """16 bytes of BLAKE2b over shape and bytes: equal for equal pictures, whatever file they came from."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def seeded_hash(seed: int, salt: str, ids: UInt64) -> UInt64:
    """Return a uniform 64-bit hash of each id, (N,) uint64; independent for different seeds or salts.

    Two rounds of SplitMix64's finaliser (Steele et al., OOPSLA 2014), the key of (seed, salt) between them:
    for one key it is a permutation, so that different ids never collide.

    Args:
        seed: any integer (`run.seed`).
        salt: the purpose of the draw, so that two draws of one sample are independent.
        ids: (N,) uint64.
    """
    stream = hashlib.blake2b(f"{seed}:{salt}".encode(), digest_size=8).digest()
    return _mix(_mix(ids) ^ np.uint64(int.from_bytes(stream, "little")))


def uniform(seed: int, salt: str, ids: UInt64) -> NDArray[np.float64]:
    """Return (N,) float64 uniform draws in [0, 1), multiples of 2**-53."""
    return (seeded_hash(seed, salt, ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smallest_draws(seed: int, salt: str, ids: UInt64, num_rows: int) -> NDArray[np.bool_]:
    """Mark the rows with the smallest seeded hashes: a sample that does not depend on the order of the rows.

    Rows of equal id (equal key and pixels) stay or go together, so a few more may be marked. Over blocks
    that are not in memory together, `uniform(seed, salt, ids) < num_rows / total` draws about as many.

    Args:
        seed: any integer.
        salt: the purpose of the draw.
        ids: (N,) uint64 draw ids.
        num_rows: how many rows to mark; all where there are fewer.

    Returns:
        (N,) bool.
    """
    if num_rows >= len(ids):
        return np.ones(len(ids), dtype=np.bool_)
    if num_rows <= 0:
        return np.zeros(len(ids), dtype=np.bool_)
    hashes = seeded_hash(seed, salt, ids)
    threshold = np.partition(hashes, num_rows - 1)[num_rows - 1]
    return np.asarray(hashes <= threshold)


def drawn_of_each_class(
    seed: int, salt: str, ids: UInt64, labels: NDArray[np.integer], num_rows: Callable[[int], int]
) -> NDArray[np.int64]:
    """Return the rows of each class with its smallest seeded hashes, ascending; ties as in `smallest_draws`.

    Args:
        seed: any integer.
        salt: the purpose of the draw.
        ids: (N,) uint64 draw ids.
        labels: (N,) the classes.
        num_rows: how many rows of a class that has so many.
    """
    drawn = np.zeros(len(ids), dtype=np.bool_)
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        drawn[here] = smallest_draws(seed, salt, ids[here], num_rows(len(here)))
    return np.flatnonzero(drawn)


def _mix(words: UInt64) -> UInt64:
    """SplitMix64's step and finaliser; array arithmetic wraps at 2**64."""
    words = np.asarray(words, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
