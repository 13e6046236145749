"""The executor on Ray Data: the same units, order and failures as that of actors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data

from rayclean.cluster.data import Data
from rayclean.cluster.sizing import Workers
from rayclean.errors import StageError
from rayclean.storage.executor import Watcher
from rayclean.storage.graph import Graph
from rayclean.storage.store import Store
from tests.cluster.test_pool import Deadly, Paths, Simulate
from tests.ray_here import logical_cpus
from tools.faults.driver import wait_for

WORKERS = Workers(2, 1, 0, "cpu")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """A cluster of one node with four logical CPUs."""
    with logical_cpus(4):
        yield


def executor() -> Data:
    return Data({"cpu": WORKERS, "gpu": WORKERS, "train": WORKERS}, mix_allowed=False)


def test_what_reads_units_that_die_never_begins_and_all_else_is_done(four_cpus: None, tmp_path: Path) -> None:
    store, graph = Store(str(tmp_path)), Graph()
    deadly, first = Deadly(store, "deadly", 0, ("SIGSEGV", "none")), Simulate(store, "first", 2)
    second = Paths(store, "second", 1, after=(first,))
    graph.want(Paths(store, "reader", 1, after=(deadly,)), second)
    with executor() as found:
        reports = {report.job.folder: report for report in found.run(lambda: graph, Watcher())}
        assert found.facts == {"datasets": 2}
    assert set(reports) == {"deadly", "first", "second"}
    assert reports["deadly"].failed == {
        "SIGSEGV": "its worker process died each time (SIGSEGV, a fault in native code)"
    }
    assert (reports["deadly"].units, reports["first"].units, reports["second"].units) == (1, 2, 1)
    assert max(stop for _, stop in first.spans()) <= min(start for start, _ in second.spans())
    # Whoever was being started anew holds no CPU that the next pool needs.
    wait_for("the CPUs", lambda: ray.available_resources().get("CPU") == 4, 30, 0.1)


def test_what_ray_data_raises_is_one_line(four_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: Any, **__: Any) -> None:
        raise ValueError("first\nit took too long")

    graph = Graph()
    graph.want(Paths(Store(str(tmp_path)), "fails", 1))
    with monkeypatch.context() as patch, executor() as found:
        patch.setattr(ray.data, "from_items", give_up)
        with pytest.raises(StageError, match=r"^Ray Data could not run 000 and others: it took too long$"):
            found.run(lambda: graph, Watcher())
