"""Two nodes, one of which dies at work, end with the bytes of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools.faults.driver import COMPUTING_ACTOR, find_below, labels, seen, started, wait_for
from tools.faults.run_folder import PARTS, RUN_TIMEOUT_S, Finished, RunFolder

pytestmark = pytest.mark.timeout(900)

# So small that each node has room for one actor.
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of one node."""
    for name in ("RAY_TMPDIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    result = Cluster(initialize_head=True, head_node_args=NODE)
    yield result
    result.shutdown()


def _raylet(node: Any) -> psutil.Process:
    """The process that starts a node's workers."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def test_a_node_that_dies_at_work_changes_no_byte(
    cluster: Any, reference: Finished, env: dict[str, str], tmp_path: Path
) -> None:
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    copy = reference.run.copy_until("embed", tmp_path / "run")
    run = RunFolder(copy.config, copy.path, ("resources.cpu.actors=2",))
    here, there = _raylet(cluster.head_node), _raylet(second)
    attached = {**env, "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
    all_parts = len(seen(reference.run.path, PARTS["paths"]))
    held: list[psutil.Process] = []

    def second_has_work_to_lose() -> bool:
        if not held and (actor := find_below(here, COMPUTING_ACTOR)):
            actor.suspend()  # else it might do all before the other has started
            held.append(actor)
        return bool(find_below(there, COMPUTING_ACTOR) and seen(run.path, PARTS["paths"]))

    with started(run.command(), attached, tmp_path / "log") as driver:
        wait_for("paths", lambda: next(run.path.glob("paths-*"), None), RUN_TIMEOUT_S)
        wait_for("a part of paths", second_has_work_to_lose, 60)
        cluster.remove_node(second, allow_graceful=False)
        done = seen(run.path, PARTS["paths"])
        assert 0 < len(done) < all_parts
        for actor in held:
            actor.resume()
        ended = driver.wait(RUN_TIMEOUT_S)
    assert ended.code == 0, ended.err
    assert labels(run.path) == labels(reference.run.path)
    after = seen(run.path, PARTS["paths"])
    assert {name: after[name] for name in done} == done
