"""Workers are sized by what single nodes have, never by their sum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.cluster.sizing import NodeSize, Workers, beside, in_words, room, size_pool, size_pools, size_training
from rayclean.config import Pool
from rayclean.errors import ConfigError

SMALL, MIDDLE, LARGE = (NodeSize(cpus, 0) for cpus in (1, 2, 4))
THREE = [SMALL, MIDDLE, LARGE]
sizes = st.lists(st.builds(NodeSize, st.integers(0, 9), st.integers(0, 3)), max_size=5)


@pytest.mark.parametrize(("workers", "cpus"), [(1, 4), (2, 2), (3, 2), (4, 1), (7, 1)])
def test_training_gets_the_most_cpus_with_which_all_find_a_node(workers: int, cpus: int) -> None:
    assert size_training(Pool(), workers, THREE) == Workers(workers, cpus, 0, "cpu")


def test_eight_training_workers_do_not_fit_seven_cpus() -> None:
    with pytest.raises(
        ConfigError, match=r"8 training workers of 1 CPUs and 0 GPUs do not fit the cluster .*1 of 4 CPUs"
    ):
        size_training(Pool(), 8, THREE)


def test_what_fits_the_sum_but_no_node_is_an_error() -> None:
    with pytest.raises(ConfigError, match="does not fit any node"):
        size_pool(Pool(cpus=5), False, THREE)
    with pytest.raises(ConfigError, match="do not fit"):
        size_training(Pool(cpus=5), 1, THREE)
    with pytest.raises(ConfigError, match="none"):
        size_training(Pool(), 1, [])


def test_a_gpu_needs_a_cpu_beside_it() -> None:
    nodes = [NodeSize(8, 0), NodeSize(1, 2), NodeSize(4, 1)]
    assert size_pool(Pool(), True, nodes) == Workers(2, 1, 1, "cuda")
    assert size_pool(Pool(gpus=0), True, nodes) == Workers(13, 1, 0, "cpu")
    assert size_pool(Pool(), False, nodes) == Workers(13, 1, 0, "cpu")
    assert size_training(Pool(), 2, nodes) == Workers(2, 1, 1, "cuda")
    assert size_training(Pool(), 3, nodes) == Workers(3, 4, 0, "cpu")


def test_a_share_of_a_cpu_is_counted_as_ray_counts() -> None:
    assert room([NodeSize(0.3, 0)], 0.1, 0) == 3
    assert size_pool(Pool(cpus=0.5, actors=3), False, THREE).actors == 3


@given(sizes, st.integers(1, 6))
def test_training_that_is_settled_fits_and_could_not_have_more(nodes: list[NodeSize], workers: int) -> None:
    try:
        found = size_training(Pool(), workers, nodes)
    except ConfigError:
        assert room(nodes, 1, 0) < workers
        return
    assert room(nodes, found.cpus, found.gpus) >= workers
    if not found.gpus:
        assert room(nodes, found.cpus + 1, 0) < workers


@given(sizes, st.booleans())
def test_a_pool_that_is_settled_fills_the_nodes(nodes: list[NodeSize], runs_networks: bool) -> None:
    try:
        found = size_pool(Pool(), runs_networks, nodes)
    except ConfigError:
        assert room(nodes, 1, 0) == 0
        return
    assert found.actors == room(nodes, found.cpus, found.gpus) >= 1
    assert sum(node.cpus for node in nodes) >= found.actors * found.cpus


def test_nodes_in_words() -> None:
    assert in_words([SMALL, LARGE, SMALL]) == "the cluster's nodes: 1 of 4 CPUs and 0 GPUs, 2 of 1 CPUs and 0 GPUs"


def test_one_pool_does_all_where_there_is_no_gpu_or_no_cpu_beside_them() -> None:
    for nodes in ([NodeSize(4, 0)], [NodeSize(2, 2)]):
        cpu, gpu = size_pools(Pool(), Pool(), nodes)
        assert cpu is gpu
    cpu, gpu = size_pools(Pool(), Pool(gpus=0), [NodeSize(4, 2)])
    assert cpu is gpu
    assert cpu == Workers(4, 1, 0, "cpu")


def test_the_cpus_of_both_pools_stay_within_the_nodes() -> None:
    nodes = [NodeSize(8, 2), NodeSize(4, 0)]
    cpu, gpu = size_pools(Pool(), Pool(), nodes)
    assert (gpu, cpu) == (Workers(2, 1, 1, "cuda"), Workers(10, 1, 0, "cpu"))
    cpu, gpu = size_pools(Pool(), Pool(cpus=3, actors=1), nodes)
    assert (gpu, cpu) == (Workers(1, 3, 1, "cuda"), Workers(9, 1, 0, "cpu"))


@given(sizes)
def test_pools_that_are_settled_fit_together(nodes: list[NodeSize]) -> None:
    try:
        cpu, gpu = size_pools(Pool(), Pool(), nodes)
    except ConfigError:
        assert not room(nodes, 1, 0)
        return
    pools = {id(pool): pool for pool in (cpu, gpu)}.values()
    assert sum(pool.actors * pool.cpus for pool in pools) <= sum(node.cpus for node in nodes)
    assert all(pool.actors >= 1 for pool in pools)


def test_beside_training_pools_keep_what_is_left_the_first_ones_first() -> None:
    nodes, pools = [NodeSize(8, 4)], [Workers(4, 1, 1, "cuda"), Workers(4, 1, 0, "cpu")]
    assert beside(Workers(4, 1, 1, "cuda"), pools, nodes) == [0, 4]
    assert beside(Workers(2, 2, 1, "cuda"), pools, nodes) == [2, 2]
    assert beside(Workers(1, 8, 0, "cpu"), pools, nodes) == [0, 0]
