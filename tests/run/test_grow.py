"""The graph of a run, as it grows with what is published."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayclean.config import Config
from rayclean.inspect.garbage import collect
from rayclean.inspect.status import read_status
from rayclean.run.run import Run
from rayclean.storage.executor import Inline, TrainFunction, train_here
from rayclean.storage.published import Published
from rayclean.storage.store import Store

ROLES = ("train.epochs=2", "train.from=", "scores=[loss, iofm, vote, odd, loss_ce]")


class Away(Exception):
    """Workers that never come."""


def without_ce(
    function: TrainFunction, task: Any, store: Store, folder: str, lost: int | None = None, stop: int | None = None
) -> None:
    """Trains all roles but one."""
    if task.role == "ce":
        raise Away
    train_here(function, task, store, folder, lost, stop)


def kinds(store: Store) -> set[str]:
    """The first words of the folders' names."""
    return {name.partition("-")[0] for name in store.list("")}


def test_what_is_trained_is_scored_beside_the_other_trainings(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    config, store = tiny_config(tmp_path / "run", *ROLES), Store(str(tmp_path / "run"))
    with pytest.raises(Away):
        finish(config, Inline(train=without_ce))
    assert {"trajectory", "embed", "neighbors", "pairs", "paths", "interpolate", "vote", "simulate"} <= kinds(store)
    assert "merge" not in kinds(store)
    status = read_status(config)
    assert {"merge", "trajectory"} <= set(status.later)
    assert all(stage.is_done for stage in status.stages if stage.stage != "train")
    assert not collect(config, dry_run=True).sizes
    there = {name: store.list(name) for name in store.list("")}
    run = finish(config)
    assert max(len(pickle.dumps(replace(job, after=()))) for job in run.merge()) < 10_000  # it travels once an actor
    assert all(set(files) <= set(store.list(name)) for name, files in there.items() if name != "lease")
    finish(tiny_config(tmp_path / "whole", *ROLES))
    found, whole = (Published.open(each) for each in (store, Store(str(tmp_path / "whole"))))
    assert found.merge == whole.merge
    assert [store.read(part) for part in found.parts] == [whole.store.read(part) for part in whole.parts]


@pytest.mark.parametrize("scores", ["[loss, inn]", "[loss, aum_excess]", "[loss, osm]"])
def test_a_family_waits_for_the_role_that_it_needs(
    scores: str, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    more = ("train.epochs=2", "train.from=", f"scores={scores}", "inn.features=ce", "influence.role=ce")
    config = tiny_config(tmp_path / "run", *more, "train.roles.ce.epochs=1")
    with pytest.raises(Away):
        finish(config, Inline(train=without_ce))
    assert {"trajectory", "embed"} <= kinds(Store(config.run.dir))
    assert not {"influence", "paths", "merge"} & kinds(Store(config.run.dir))
    table = finish(config)
    assert Published.open(table.store).is_whole()
