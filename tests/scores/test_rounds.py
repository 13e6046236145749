"""Paths in rounds: who walks on, what that leaves of the scores, and the same in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.merge import rounds
from rayclean.merge.anchors import fit_joint
from rayclean.merge.rounds import undecided
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays, read_table

Tiny = Callable[..., Config]
Finish = Callable[..., Run]
SCORES = ("score_iofm", "score_inn")
FIXED = ("scores=[loss, iofm, inn]", "inn.features=self", "inn.steps=2", "iofm.num=4", "inn.num=4")
ROUNDS = ("iofm.rounds=[1, 2, 4]", "inn.rounds=[2, 4]")


def table_of(run: Run) -> dict[str, Array]:
    tables = [read_table(run.store, f"labels/{name}") for name in run.store.list("labels") if name.startswith("part-")]
    return {name: np.concatenate([table[name].to_numpy() for table in tables]) for name in (*SCORES, "few_neighbors")}


def assert_same(one: Run, other: Run) -> None:
    first, second = table_of(one), table_of(other)
    for name in SCORES:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-6)


def test_where_all_stay_undecided_rounds_change_nothing(
    tiny_config: Tiny, finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SURE", 1.0)
    plain = finish(tiny_config(tmp_path / "plain", *FIXED))
    assert_same(finish(tiny_config(tmp_path / "run", *FIXED, *ROUNDS)), plain)


def test_where_all_are_decided_the_first_round_is_all(
    tiny_config: Tiny, finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SURE", 0.5)
    plain = finish(tiny_config(tmp_path / "plain", *FIXED[:-2], "iofm.num=1", "inn.num=2"))
    assert_same(finish(tiny_config(tmp_path / "run", *FIXED, *ROUNDS)), plain)


def scores_of(run: Run, folder: str) -> list[Mapping[str, Array]]:
    names = [name for name in run.store.list(folder) if name.endswith(".safetensors")]
    return [map_arrays(run.store, f"{folder}/{name}") for name in names]


def column(run: Run, folder: str, name: str) -> Array:
    return np.concatenate([part[name] for part in scores_of(run, folder)])


def test_undecided_rows_alone_walk_on(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", *FIXED, *ROUNDS, "run.keep=all"))
    walk = run.walks_of("inn")[0]
    first, last = (run.interpolate(each).folder for each in walk.rounds)
    before, after = (column(run, folder, "values").astype(np.float64) for folder in (first, last))
    labels = run.catalog.label
    log_odds = fit_joint(before, labels).log_odds(before, labels)
    expected = np.abs(log_odds) < logit(rounds.SURE)
    assert 0 < expected.sum() < len(expected)
    marks = column(run, run.between_rounds(walk.rounds[0])[1].folder, "undecided")
    np.testing.assert_array_equal(marks > 0, expected)
    np.testing.assert_array_equal(after[~expected], before[~expected])
    paths = [column(run, folder, "num_paths") for folder in (first, last)]
    assert (paths[1][expected] > paths[0][expected]).all()
    np.testing.assert_array_equal(paths[1][~expected], paths[0][~expected])


def test_folders_between_rounds_are_tidied(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    run = finish(tiny_config(tmp_path / "run", *FIXED, *ROUNDS))
    there = {path.name for path in Path(run.store.path).iterdir()}
    from rayclean.run.pipeline import tidy

    tidy(run)
    left = {path.name for path in Path(run.store.path).iterdir()}
    assert {name.split("-")[0] for name in there - left} >= {"decide", "pairs", "paths", "interpolate"}
    assert all(run.interpolate(walk).folder in left for walk in run.walks)


@pytest.mark.parametrize("ends", ["[2, 3]", "[4, 2]", "[2, 2, 4]", "[0, 4]", "[1, 2, 3, 4]"])
def test_rounds_that_do_not_grow_to_the_number_of_neighbours_are_refused(
    ends: str, tiny_config: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="rounds"):
        tiny_config(tmp_path, *FIXED, f"iofm.rounds={ends}")


def test_sure_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    beliefs, labels = rng.dirichlet(np.ones(3), 500), rng.integers(0, 3, 500)
    model = fit_joint(beliefs, labels)
    score = model.posterior(beliefs, labels).label_score
    found = undecided(model, beliefs, labels)
    sure = (score > rounds.SURE) | (score < 1 - rounds.SURE)
    # `label_score` is rounded to float32.
    assert (found == ~sure).mean() > 0.99
