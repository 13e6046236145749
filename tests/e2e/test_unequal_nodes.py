"""Nodes of 1, 2 and 4 CPUs and the default resources: a run trains and ends, with the bytes of one node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.faults.driver import labels
from tools.faults.run_folder import Finished, RunFolder, finish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NODE = {"num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def nodes(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of a driver that attaches to three nodes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_TMPDIR", "CUDA_VISIBLE_DEVICES"):
            patch.setenv(name, env[name])
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 1})
        for cpus in (2, 4):
            cluster.add_node(**NODE, num_cpus=cpus)
        cluster.wait_for_nodes()
        yield {**env, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
        cluster.shutdown()


def _run(reference: Finished, folder: Path, env: dict[str, str], **train: Any) -> RunFolder:
    """The digits with default resources, on these nodes."""
    tree = yaml.safe_load(reference.run.config.read_text())
    del tree["resources"]
    tree["train"] |= train
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    run = RunFolder(config, folder / "run")
    ended = finish(run, env, folder / "log")
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    return run


@pytest.mark.parametrize("workers", [1, 3])  # three need two nodes: 2 CPUs each
def test_the_default_config_trains_and_ends_with_a_table(
    workers: int, nodes: dict[str, str], reference: Finished, tmp_path: Path
) -> None:
    run = _run(reference, tmp_path / "three", nodes, workers=workers)
    assert len(labels(run.path)) == len(labels(reference.run.path))


def test_from_one_snapshot_the_table_is_that_of_one_node(
    nodes: dict[str, str], env: dict[str, str], reference: Finished, tmp_path: Path
) -> None:
    (snapshot,) = reference.run.path.glob("train-main-*/snapshots/epoch-0004.safetensors")
    settings = {"epochs": 0, "from": str(snapshot)}
    three = _run(reference, tmp_path / "three", nodes, **settings)
    one = _run(reference, tmp_path / "one", env, **settings)
    assert labels(three.path) == labels(one.path)
