"""A training that is no job of a graph: idle actors hold no processor that it may be waiting for."""

from __future__ import annotations

from typing import Any

import pytest

from rayclean.cluster import actors
from rayclean.cluster.pool import Pool
from rayclean.cluster.sizing import Workers
from rayclean.storage.store import Store


def test_actors_end_before_a_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def trained(*arguments: Any, workers: Workers) -> None:
        done.append(f"trained on {arguments}, {workers.threads} threads")

    monkeypatch.setattr(actors, "run_training", trained)
    monkeypatch.setattr(actors, "memory_share", lambda _: 1)  # it asks a cluster
    monkeypatch.setattr(Pool, "close", lambda pool: done.append("closed"))
    workers = {"cpu": Workers(1, 1, 0, "cpu"), "gpu": Workers(1, 1, 0, "cpu"), "train": Workers(1, 2, 0, "cpu")}
    store = Store("/nowhere")
    actors.Actors(workers, mix_allowed=False).train(lambda *_: None, "task", store, "learn-1", 3)
    *closed, last = done
    assert closed == ["closed"] * 2
    assert last.startswith("trained on (<function")
    assert last.endswith("2 threads")
