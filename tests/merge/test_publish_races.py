"""Two drivers that publish at once, as when one was taken over: there is one table, whole, and never a mixture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.config import Config
from rayclean.errors import RaycleanError
from rayclean.merge.publish import publish_labels
from rayclean.run.run import Run
from rayclean.storage.published import LABELS, Published
from rayclean.storage.store import Store

NAMES = [str(i) for i in range(6)]


@pytest.fixture
def runs(tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path) -> list[Run]:
    """Two configs of one run folder whose merges are done: tables of different scores and numbers of parts."""
    return [finish(tiny_config(tmp_path, *more)) for more in ((), ("merge.score=loss", "blocks.table_rows=16"))]


def race(runs: list[Run]) -> list[str]:
    """Lets both publish at once; returns what each ended with."""
    start, ends = threading.Barrier(2), ["", ""]

    def publish(index: int) -> None:
        start.wait()
        try:
            publish_labels(runs[index].merge()[1], NAMES, lease=index)
            ends[index] = "published"
        except RaycleanError as e:
            ends[index] = f"{type(e).__name__}: {e}"

    threads = [threading.Thread(target=publish, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


@pytest.mark.parametrize("rounds", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_no_table_is_a_mixture(rounds: int, runs: list[Run]) -> None:
    store: Store = runs[0].store
    merges = [run.merge()[1] for run in runs]
    expected = {job.folder: [store.read(job.file(unit)) for unit in job.units()] for job in merges}
    seen = set()
    for _ in range(rounds):
        ends = race(runs)
        table = Published.open(store)  # a table that lacks a part would be damaged here
        assert table.is_whole()
        assert [store.read(part) for part in table.parts] == expected[table.merge]
        assert sorted(store.list(LABELS)) == sorted(p.rpartition("/")[2] for p in table.parts)
        assert "published" in ends
        seen.add(table.merge)
    assert rounds < 200 or seen == set(expected)  # either may win
