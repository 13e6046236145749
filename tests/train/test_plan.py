"""The plan of an epoch: every row once over all ranks, equally many steps, repeated rows counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.train.plan import EpochPlan, batch_bounds, epoch_seed, plan_cached, plan_stream, steps_of

shard_rows = st.lists(st.integers(0, 30), min_size=1, max_size=10).map(lambda rows: np.array(rows, np.int64))
nonempty = shard_rows.filter(lambda rows: rows.sum() > 0)


def rows_of(plan: EpochPlan, first_row: Array) -> list[int]:
    return [int(first_row[p.shard]) + i for p in plan.parts for i in range(p.start, p.stop)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), nonempty, st.integers(1, 40))
def test_streaming_reads_every_row_once_in_equal_steps(
    seed: int, epoch: int, ranks: int, rows: Array, batch_size: int
) -> None:
    if rows.sum() < ranks:
        with pytest.raises(ConfigError, match=rf"train\.workers: {ranks} workers cannot share {rows.sum()} rows"):
            plan_stream(seed, epoch, ranks, rows, batch_size)
        return
    plans = plan_stream(seed, epoch, ranks, rows, batch_size)
    first_row = np.cumsum(rows) - rows
    mine = [rows_of(plan, first_row) for plan in plans]
    assert sorted(itertools.chain(*mine)) == list(range(rows.sum()))
    assert len(plans) == ranks
    assert len({(plan.steps, plan.num_rows) for plan in plans}) == 1
    for plan, read in zip(plans, mine, strict=True):
        assert plan.num_rows == len(read) + plan.repeated
        assert plan.repeated in (0, 1)
        assert plan.parts
        bounds = batch_bounds(plan.num_rows, plan.steps)
        assert max(stop - start for start, stop in bounds) <= batch_size
        assert all(0 <= p.start < p.stop <= rows[p.shard] for p in plan.parts)


def test_a_shard_is_cut_only_where_a_rank_ends() -> None:
    plans = plan_stream(3, 1, 3, np.full(7, 10), 8)
    cut = [p for plan in plans for p in plan.parts if p.stop - p.start < 10]
    assert len({p.shard for p in cut}) <= 2
    assert all(sum(p.stop - p.start < 10 for p in plan.parts) <= 2 for plan in plans)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), st.integers(1, 200))
def test_the_cached_plan_is_a_permutation(seed: int, epoch: int, ranks: int, num_rows: int) -> None:
    slices = [plan_cached(seed, epoch, rank, ranks, num_rows) for rank in range(ranks)]
    assert {len(mine) for mine in slices} == {-(-num_rows // ranks)}
    together = np.concatenate(slices)
    assert sorted(together[:num_rows]) == list(range(num_rows))
    assert together[num_rows:].tolist() == np.resize(together[:num_rows], len(together) - num_rows).tolist()


@pytest.mark.parametrize("other", [(1, 2), (2, 1)])
def test_seeds_and_epochs_have_orders_of_their_own_and_repeat(other: tuple[int, int]) -> None:
    rows = np.full(12, 5)
    cached = [plan_cached(*which, 0, 1, 60).tolist() for which in ((1, 1), (1, 1), other)]
    streamed = [plan_stream(*which, 2, rows, 8) for which in ((1, 1), (1, 1), other)]
    for plans in (cached, streamed):
        assert plans[0] == plans[1] != plans[2]


def test_seeds_of_different_uses_differ() -> None:
    uses = itertools.product((0, 1), (1, 2), (0, 1), ("buffer", "batches", "shards"))
    seeds = [epoch_seed(*use) for use in uses]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 130))
def test_batches_differ_by_one_row_at_most(num_rows: int, batch_size: int) -> None:
    steps = steps_of(num_rows, batch_size)
    bounds = batch_bounds(num_rows, steps)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(num_rows))
    sizes = [stop - start for start, stop in bounds]
    assert len(sizes) == steps == -(-num_rows // batch_size)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
