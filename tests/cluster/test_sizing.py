"""Workers are sized by what single nodes have, never by their sum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.cluster.sizing import NodeSize, Workers, in_words, room, size_pool, size_training
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
