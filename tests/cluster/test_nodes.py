"""Nodes that are asked, and training's workers: what is told when one dies, fails or finds no place."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from rayclean.cluster import nodes, trainer
from rayclean.cluster.nodes import call_on, check_nodes
from rayclean.cluster.sizing import Workers
from rayclean.cluster.trainer import run_training
from rayclean.errors import ClusterError, StageError
from rayclean.storage.executor import Report
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from tests.ray_here import logical_cpus
from tools.faults.driver import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """A cluster of one node with two logical CPUs, that trains without a pause between looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        with logical_cpus(2):
            yield


def test_a_node_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here,) = nodes = ray.nodes()
    gone = {**here, "NodeID": secrets.token_hex(28), "NodeManagerHostname": "gone"}
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, gone])
    with pytest.raises(ClusterError, match=r"^node gone \(\S+\) could not be looked at: .+; give the same") as caught:
        check_nodes(Store(str(tmp_path)))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("probe*")) == []


def test_a_node_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ANSWER_S", 0.5)
    monkeypatch.setattr(nodes, "_look", lambda *_: time.sleep(5))
    with pytest.raises(ClusterError, match=r"could not be looked at: no answer for 0.5 s; give"):
        check_nodes(Store(str(tmp_path)))


def _die(_: Workers) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(_: Workers) -> None:
    raise ValueError("no such device")


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (_fail, "no such device"),
        pytest.param(_die, "memory|died|killed|system error", marks=pytest.mark.slow),  # Ray tries four times
    ],
)
def test_a_node_that_fails_to_answer_is_one_line(function: Any, cause: str) -> None:
    with pytest.raises(ClusterError, match=f"^a node could not be asked what its device can do: .*({cause})") as caught:
        call_on(function, Workers(1, 1, 0, "cpu"))
    assert "\n" not in str(caught.value)


def _ports() -> list[str]:
    """Where this process listens, but for Ray's own port."""
    found = psutil.Process().net_connections("inet")
    return sorted(each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN)


def _note_ports(folder: str, rank: int, ranks: int, resume: Resume, report: Report) -> None:
    import torch
    import torch.distributed as dist

    if ranks > 1:
        total = torch.ones(1)
        dist.all_reduce(total)
        assert total.item() == ranks
    Path(folder, f"{rank}-of-{ranks}").write_text(f"{dist.is_initialized()} {' '.join(_ports())}")
    report(1, {"epoch": 1} if rank == 0 else None)


# That one rank opens nothing is seen in a whole run too (tests/e2e/test_doors.py).
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_training_on_one_node_opens_nothing_to_others(ranks: int, tmp_path: Path) -> None:
    """Ray's own port of each worker is the only one that is not on loopback, and one rank has no other."""
    workers = Workers(ranks, 1, 0, "cpu")
    run_training(_note_ports, str(tmp_path), Store(str(tmp_path)), "train", workers=workers)
    for rank in range(ranks):
        grouped, *ports = (tmp_path / f"{rank}-of-{ranks}").read_text().split()
        assert grouped == str(ranks > 1)
        assert [port for port in ports if port != "127.0.0.1"] == ["::"]
        assert ranks > 1 or len(ports) == 1


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of waiting."""
    return [record.getMessage() for record in caplog.records if record.name == nodes.__name__]


def _die_as(number: int, rank: int, ranks: int, resume: Resume, report: Report) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


@pytest.mark.slow
def test_training_that_waits_says_so_and_names_the_signal_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "WAIT_TOLD_S", 0.5)
    monkeypatch.setattr(trainer, "MAX_FAILURES", 0)
    held = ray.util.placement_group([{"CPU": 2}])
    assert held.wait(60)
    with ThreadPoolExecutor(1) as thread:
        arguments = (_die_as, int(signal.SIGSEGV), Store(str(tmp_path)), "train")
        running = thread.submit(run_training, *arguments, workers=Workers(1, 1, 0, "cpu"))
        wait_for("a line", lambda: said(caplog), 60, 0.05)
        ray.util.remove_placement_group(held)
        error = running.exception(120)
    assert said(caplog) == [
        "waiting for 1 training workers of 1 CPUs and 0 GPUs each; the cluster's nodes: 1 of 2 CPUs and 0 GPUs; free "
        "now: 0 CPUs and 0 GPUs"
    ]
    assert isinstance(error, StageError)
    assert str(error) == (
        "training failed in spite of retries, last with: rank 0 died (SIGSEGV, a fault in native code)"
    )
