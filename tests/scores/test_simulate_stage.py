"""ODD of a run: judged by the mean loss of the epochs up to its own, against losses simulated from that snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.noise import drawn_to_flip
from rayclean.config import Config, SimulatedLossSection, parse_config
from rayclean.errors import ConfigError
from rayclean.evaluate import results
from rayclean.run.families import odd, planted_check
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores import simulated_loss
from rayclean.scores.simulate_stage import CHECK
from rayclean.scores.simulated_loss import NUM_DRAWS, agreement, simulated_losses
from rayclean.storage.contents import map_arrays, read_json, read_table
from rayclean.train.plan import role_seed
from rayclean.train.trajectories import read_trajectory

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
TRAINED = ("train.epochs=4", "train.from=", "train.snapshot_every=4", "scores=[loss, odd]", "simulated_loss.average=2")


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def losses_of(run: Run, epoch: int) -> Array:
    blocks = range(-(-run.catalog.num_rows // run.config.blocks.rows))
    pieces = [read_trajectory(run.store, run.main.trained.folder, epoch, block)[0] for block in blocks]
    return np.concatenate(pieces).astype(np.float64)


@pytest.mark.parametrize("kind", ["gauss", "gauss_pooled", "empirical"])
def test_rows_are_judged_at_odds_epoch(kind: str, tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    fixed = (*TRAINED, "simulated_loss.epoch=3", f"simulated_loss.kind={kind}", "simulated_loss.percentile=40")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    assert [snapshot.epoch for snapshot in run.main.trained.snapshots] == [3, 4]
    found = table_of(run)
    expected = (losses_of(run, 2) + losses_of(run, 3)) / 2
    np.testing.assert_allclose(found["score_odd"].to_numpy(), -expected, rtol=1e-6)
    snapshot = run.main.trained.snapshots[0]
    head = map_arrays(run.store, snapshot.file)
    features = None
    if kind != "gauss":
        embedding = run.main.embed(snapshot).embedding
        features = embedding.features(np.arange(run.catalog.num_rows)).astype(np.float64)
    measured = {} if features is None else {"mean": features.mean(0), "std": features.std(0), "features": features}
    simulated = simulated_losses(head["head.weight"], head["head.bias"], kind, NUM_DRAWS, 0, **measured)
    position = np.searchsorted(simulated, expected) / NUM_DRAWS
    np.testing.assert_allclose(found["odd_quantile"].to_numpy(), position, rtol=0, atol=1e-4)
    dropped = found["odd_drop"].to_numpy()
    assert dropped.tolist() == (expected > np.percentile(simulated, 40)).tolist()
    assert found.schema.field("odd_drop").type == pa.bool_()


def test_the_epoch_is_a_share_of_the_roles_epochs(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    of_role = ("simulated_loss.role=ce", "train.roles.ce.epochs=8")
    run = finish(tiny_config(tmp_path / "run", *TRAINED, *of_role))
    steps = odd(run)
    assert steps is not None
    assert (steps[0].snapshot.role, steps[0].snapshot.epoch) == ("ce", 3)
    assert [snapshot.epoch for snapshot in run.main.trained.snapshots] == [4]


def test_without_epochs_there_is_none(tiny_config: Tiny, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    assert "odd" not in config.score_names()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 41}, "simulated_loss.epoch: found 41, but role main has 40"),
        ({"epoch": 0}, "simulated_loss.epoch"),
        ({"epoch": 1.5}, "simulated_loss.epoch"),
        ({"role": "nobody"}, "simulated_loss.role: no role 'nobody'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"run": {"dir": "r"}, "data": {"shards": "s", "classes": 3}, "simulated_loss": settings})


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 1000))
def test_a_share_always_names_an_epoch(share: float, num_epochs: int) -> None:
    found = SimulatedLossSection(epoch=share).epoch_of(num_epochs)
    assert 1 <= found <= num_epochs
    assert abs(found - share * num_epochs) <= max(0.5, 1 - share * num_epochs) + 1e-9


@pytest.mark.parametrize(
    ("epoch", "num_epochs", "expected"),
    [(0.375, 40, 15), (0.375, 200, 75), (0.375, 12, 5), (0.375, 1, 1), (7, 40, 7), (1, 40, 1), (1.0, 9, 9)],
)
def test_the_epoch_is_a_number_or_a_share(epoch: float, num_epochs: int, expected: int) -> None:
    tree = {"run": {"dir": "r"}, "data": {"shards": "s", "classes": 3}, "simulated_loss": {"epoch": epoch}}
    assert parse_config(tree).simulated_loss.epoch_of(num_epochs) == expected


def test_planted_labels_check_the_simulation(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    planted = ("train.roles.plant.epochs=5", "simulated_loss.planted=0.5", "simulated_loss.epoch=3")
    run = finish(tiny_config(tmp_path / "run", *TRAINED, *planted))
    planted_rows = run.planted["plant"]
    rows = drawn_to_flip(run.catalog.draw_id, 0.5, role_seed(0, "plant"))
    changed = planted_rows.label != run.catalog.label
    assert changed.any()
    assert not (changed & ~rows).any()
    assert table_of(run)["given_label"].to_pylist() == run.catalog.label.tolist()  # the table knows nothing of it
    trained = run.roles["plant"].trained
    assert [snapshot.epoch for snapshot in trained.snapshots] == [3, 4, 5]
    check = planted_check(run)
    assert check is not None
    facts = read_json(run.store, check[1].file(CHECK))
    blocks = range(-(-run.catalog.num_rows // run.config.blocks.rows))
    epochs = [
        np.concatenate([read_trajectory(run.store, trained.folder, epoch, block)[0] for block in blocks])
        for epoch in (2, 3)
    ]
    losses = np.mean(epochs, axis=0)[rows]
    head = map_arrays(run.store, trained.snapshots[0].file)
    simulated = simulated_losses(head["head.weight"], head["head.bias"], "gauss", NUM_DRAWS, role_seed(0, "plant"))
    assert facts["planted"] == rows.sum()
    assert facts["distance"] == pytest.approx(agreement(losses, simulated))
    assert facts["follows"] is None  # too few rows to tell
    assert results.warnings(run) == []


def test_a_simulation_that_does_not_hold_is_warned_of(
    tiny_config: Tiny, finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_loss, "MIN_PLANTED", 5)
    monkeypatch.setattr(simulated_loss, "MAX_DISTANCE", 1e-9)
    planted = ("train.roles.plant.epochs=4", "simulated_loss.planted=0.5")
    run = finish(tiny_config(tmp_path / "run", *TRAINED, *planted))
    assert "planted uniform labels do not follow" in results.warnings(run)[0]


def test_planted_labels_need_epochs(tiny_config: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="planted labels must be trained on"):
        tiny_config(tmp_path / "run", "train.roles.plant.from=x", "train.roles.plant.epochs=0")
