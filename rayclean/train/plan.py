"""Which rank reads which rows in which order: pure functions of the seed, the epoch and the sizes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from rayclean.config import MAIN
from rayclean.errors import ConfigError
from rayclean.schema import Array


@dataclass(frozen=True)
class Part:
    """Rows [start, stop) of a shard, counted in the shard."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class EpochPlan:
    """One rank's share of an epoch.

    Attributes:
        parts: what it reads, in order; the parts of all ranks cover every row once.
        num_rows: rows that it trains on, the same for every rank.
        repeated: rows of these that it trains on twice, since it was given fewer.
        steps: optimizer steps, the same for every rank.
    """

    parts: tuple[Part, ...]
    num_rows: int
    repeated: int
    steps: int


def epoch_seed(seed: int, epoch: int, rank: int, purpose: str) -> int:
    """A 63-bit seed for one use of randomness in one epoch on one rank."""
    entropy = [seed, epoch, rank, *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def role_seed(seed: int, role: str) -> int:
    """The seed of a role's draws: networks of two roles start apart."""
    return seed if role == MAIN else epoch_seed(seed, 0, 0, role)


def steps_of(num_rows: int, batch_size: int) -> int:
    """Steps that a rank takes for `num_rows` rows."""
    return max(1, -(-num_rows // batch_size))


def batch_bounds(num_rows: int, steps: int) -> list[tuple[int, int]]:
    """Cuts a rank's rows into `steps` batches whose sizes differ by one at most.

    A short last batch would make a step of its own weight, and BatchNorm of a few images is noise.
    """
    edges = [round(i * num_rows / steps) for i in range(steps + 1)]
    return list(itertools.pairwise(edges))


def plan_stream(seed: int, epoch: int, ranks: int, shard_rows: Array, batch_size: int) -> list[EpochPlan]:
    """Plans an epoch that streams shards in a shuffled order, cutting shards where a rank's share ends.

    Args:
        seed: the run's seed.
        epoch: counted from 1.
        ranks: number of training workers.
        shard_rows: (S,) rows of each shard.
        batch_size: rows of a step and rank, at most.

    Returns:
        One plan per rank; shares differ by one row at most.

    Raises:
        ConfigError: there are fewer rows than ranks.
    """
    total = int(np.sum(shard_rows))
    if total < ranks:
        raise ConfigError(f"train.workers: {ranks} workers cannot share {total} rows; lower it to {total}")
    ends = [(rank + 1) * total // ranks for rank in range(ranks)]
    parts: list[list[Part]] = [[] for _ in range(ranks)]
    position = rank = 0
    order = np.random.default_rng(epoch_seed(seed, epoch, 0, "shards")).permutation(len(shard_rows))
    for shard in order:
        start = 0
        while start < shard_rows[shard]:
            # This rank's share is full; the next one goes on in the same shard.
            rank += position == ends[rank]
            take = int(min(shard_rows[shard] - start, ends[rank] - position))
            parts[rank].append(Part(int(shard), start, start + take))
            start, position = start + take, position + take
    given = [sum(part.stop - part.start for part in mine) for mine in parts]
    per_rank = -(-total // ranks)
    steps = steps_of(per_rank, batch_size)
    return [EpochPlan(tuple(mine), per_rank, per_rank - rows, steps) for mine, rows in zip(parts, given, strict=True)]


def plan_cached(seed: int, epoch: int, rank: int, ranks: int, num_rows: int) -> Array:
    """Rows that a rank trains on when every rank holds all images: its slice of one full permutation.

    Returns:
        (ceil(num_rows / ranks),) int64; the last rank repeats the permutation's first rows where it is short.
    """
    order = np.random.default_rng(epoch_seed(seed, epoch, 0, "rows")).permutation(num_rows)
    per_rank = -(-num_rows // ranks)
    return np.take(order, np.arange(rank * per_rank, (rank + 1) * per_rank), mode="wrap")
