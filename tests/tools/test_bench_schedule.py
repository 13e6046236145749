"""The graph of a very large run is handed out whole, each unit once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rayclean.storage.store import Store
from tools.bench.schedule import CHAINS, SNAPSHOTS, Sleeping, main, snapshots


def test_all_units_are_handed_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--jobs", str(3 * CHAINS), "--units", "7"])
    assert re.match(rf"{3 * CHAINS * 7} units in {3 * CHAINS} jobs: [\d,]+ units/s;", capsys.readouterr().out)


def test_the_units_of_snapshots_are_uneven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    graph = snapshots(Store(str(tmp_path)))
    for job in graph.jobs.values():
        assert isinstance(job, Sleeping)
        slept.clear()
        for unit in job.units():
            job.open()(unit)
        assert 0.1 < sum(slept) / job.mean_s / job.num < 1.3
        assert job.num < 8 or max(slept) > 4 * min(slept)
    assert sum(len(job.units()) for job in graph.jobs.values()) == SNAPSHOTS * 49
