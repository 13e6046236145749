"""INN: paths to neighbours of any label, near by another network's features; scores of further roles."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision

from rayclean.config import Config
from rayclean.embed.features_stage import check_features, features_job, strict_features
from rayclean.embed.given import FileFeatures, open_given
from rayclean.errors import ConfigError, InputError
from rayclean.run.before import look_before
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores.trajectory import trajectory_scores
from rayclean.storage.contents import map_arrays, read_table
from rayclean.train.forward import Forward
from rayclean.train.snapshots import load_snapshot
from rayclean.train.spec import network_spec
from rayclean.train.trajectories import read_trajectory

Finish = Callable[..., Run]
Tiny = Callable[..., Config]
NUM_NEIGHBORS = 5
TRAINED = ("train.epochs=2", "train.from=", "train.snapshot_every=1", "inn.steps=3", f"inn.num={NUM_NEIGHBORS}")


def table_of(run: Run) -> pa.Table:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    return pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names])


def nearest(features: Array, run: Run, row: int) -> list[int]:
    """The nearest rows of any label, without exact copies of the same label."""
    labels, digests = run.catalog.label, run.catalog.digest
    distance = ((features - features[row]) ** 2).sum(axis=1)
    copies = (digests == digests[row]).all(axis=1) & (labels == labels[row])
    distance[copies] = np.inf  # a row is a copy of itself
    return [int(other) for other in np.argsort(distance, kind="stable")[:NUM_NEIGHBORS]]


def forward_of(run: Run) -> Forward:
    main = run.network
    return Forward(load_snapshot(run.store, main.last.file, main.spec), main.spec, main.forward)


def assert_defined(run: Run, features: Array, share: list[float], weights: list[float]) -> None:
    """Every score is the weighted mean over the points of the paths to the rows that are near by `features`."""
    forward, labels = forward_of(run), run.catalog.label
    images = forward.normalized(run.catalog.pixels(8, 1e6).read(np.arange(run.catalog.num_rows)))
    found = table_of(run)["score_inn"].to_pylist()
    for row in range(run.catalog.num_rows):
        points = [torch.lerp(images[row], images[near], h) for near in nearest(features, run, row) for h in share]
        at_label = forward.probabilities(torch.stack(points))[:, labels[row]].double().numpy()
        expected = (at_label.reshape(-1, len(share)) @ np.array(weights)).mean()
        assert found[row] == pytest.approx(expected, abs=1e-6), row


def features_of(run: Run, role: str) -> Array:
    embedding = run.roles[role].embed(run.roles[role].last).embedding
    return embedding.features(np.arange(run.catalog.num_rows)).astype(np.float64)


@pytest.mark.parametrize(
    ("overrides", "share", "weights"),
    [
        (["inn.steps=4"], [0, 0.25, 0.5, 0.75, 1], [0.125, 0.25, 0.25, 0.25, 0.125]),
        (["inn.steps=2", "inn.end_points=false"], [0.5], [1]),
    ],
    ids=["trapezoid", "midpoint"],
)
def test_it_equals_the_definition(
    overrides: list[str], share: list[float], weights: list[float], tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    fixed = ("scores=[loss, inn]", "inn.features=self", f"inn.num={NUM_NEIGHBORS}")
    run = finish(tiny_config(tmp_path / "run", *fixed, *overrides))
    assert run.config.role_names() == ("main",)
    assert_defined(run, features_of(run, "main"), share, weights)


def test_a_pair_is_walked_once_for_both_ends(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    fixed = ("scores=[inn]", "inn.features=self", "inn.steps=3", f"inn.num={NUM_NEIGHBORS}")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    folder = f"{run.lists_folder(run.walks[0].space, NUM_NEIGHBORS)}/any"
    lists = np.concatenate([map_arrays(run.store, f"{folder}/{name}")["rows"] for name in run.store.list(folder)])
    distinct = {(min(i, j), max(i, j)) for i, mine in enumerate(lists.tolist()) for j in mine}
    pairs, paths = run.pairs(run.walks[0]), run.paths(run.walks[0])
    assert len(pairs.units()) > 1
    found = [map_arrays(run.store, pairs.file(unit)) for unit in pairs.units()]
    ends = [(part["left"].tolist(), part["right"].tolist()) for part in found]
    assert sorted(pair for each in ends for pair in zip(*each, strict=True)) == sorted(distinct)
    compute = paths.open()
    assert sum(compute(unit).facts["forwards"] for unit in paths.units()) == 2 * len(distinct)


@pytest.fixture(scope="module")
def roles(tiny_config: Tiny, finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three roles: its own, cross-entropy with a wider network, and with negative entropy."""
    names = "scores=[loss, aum, inn, iofm_last, loss_ce, aum_ce, ens_loss_ce_ne]"
    wider = ("train.roles.ce.model.width=6", "train.roles.ce.epochs=3")
    return finish(tiny_config(tmp_path_factory.mktemp("roles") / "run", *TRAINED, names, *wider))


def test_neighbours_are_near_by_another_networks_features(roles: Run) -> None:
    assert roles.config.role_names() == ("main", "ce", "ce_ne")
    features = features_of(roles, "ce")
    assert features.shape[1] == 24
    assert features_of(roles, "main").shape[1] == 16
    assert_defined(roles, features, [0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6])


def test_a_role_has_trajectory_scores_of_its_own(roles: Run) -> None:
    found = table_of(roles)
    blocks = range(-(-roles.catalog.num_rows // roles.config.blocks.rows))
    for role, num_epochs, names in (
        ("main", 2, ["loss", "aum"]),
        ("ce", 3, ["loss", "aum"]),
        ("ce_ne", 2, ["ens_loss"]),
    ):
        trained = roles.roles[role].trained
        assert trained.epochs == num_epochs
        epochs = []
        for epoch in range(1, num_epochs + 1):
            pieces = [read_trajectory(roles.store, trained.folder, epoch, block) for block in blocks]
            epochs.append([np.concatenate(column) for column in zip(*pieces, strict=True)])
        expected = trajectory_scores(*(np.stack(column) for column in zip(*epochs, strict=True)))
        for name in names:
            column = f"score_{name}" if role == "main" else f"score_{name}_{role}"
            np.testing.assert_allclose(found[column].to_numpy(), expected[name], rtol=1e-6, atol=1e-9)


def test_roles_start_from_weights_of_their_own(roles: Run) -> None:
    main, other = (map_arrays(roles.store, roles.roles[name].trained.snapshots[0].file) for name in ("main", "ce_ne"))
    assert main.keys() == other.keys()
    assert not np.allclose(main["head.weight"], other["head.weight"])


def test_features_of_a_frozen_torchvision_network(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model("resnet18", weights=None).state_dict(), tmp_path / "weights.pt")
    backbone = f"{{name: resnet18, weights: {tmp_path}/weights.pt, size: 40}}"
    role = ("inn.features=backbone", f"train.roles.backbone={{epochs: 0, model: {backbone}}}")
    names = ("scores=[loss, inn]", "inn.steps=2", f"inn.num={NUM_NEIGHBORS}")
    run = finish(tiny_config(tmp_path / "run", *names, *role))
    features = features_of(run, "backbone")
    assert (network_spec(run.config, 2, "backbone").size, run.network.spec.size) == (40, 8)
    assert_defined(run, features, [0, 0.5, 1], [0.25, 0.5, 0.25])


def test_inn_at_several_epochs_is_that_of_the_last(tiny_config: Tiny, finish: Finish, tmp_path: Path) -> None:
    fixed = (*TRAINED, "scores=[inn]", "inn.features=self")
    both = finish(tiny_config(tmp_path / "both", *fixed, "inn.epochs=[1, 2]"))
    last = finish(tiny_config(tmp_path / "last", *fixed))
    assert [walk.snapshot.epoch for walk in both.walks] == [1, 2]
    assert table_of(both)["score_inn"].equals(table_of(last)["score_inn"])


def features_file(path: Path, run: Run, values: Array, **changes: list[str] | None) -> Path:
    """A file of features, its rows in another order than the catalog's."""
    shards = run.catalog.shards["name"].to_pylist()
    tables = [run.catalog.rows_of_shard(shard) for shard in range(len(shards))]
    columns: dict[str, list[object] | None] = {
        "key": [key for table in tables for key in table["key"].to_pylist()],
        "shard": [name for name, table in zip(shards, tables, strict=True) for _ in range(table.num_rows)],
        "features": values.tolist(),
    }
    columns |= changes  # type: ignore[arg-type]
    order = np.random.default_rng(0).permutation(len(values))
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    pq.write_table(table.take(order), path)
    return path


@pytest.mark.parametrize("by_shard", [True, False])
def test_neighbours_are_near_by_features_of_a_file(
    by_shard: bool, scored: Run, tiny_config: Tiny, finish: Finish, tmp_path: Path
) -> None:
    features = np.random.default_rng(1).normal(size=(scored.catalog.num_rows, 7)).astype(np.float16).astype(float)
    changes = {} if by_shard else {"shard": None}
    file = features_file(tmp_path / "features.parquet", scored, features, **changes)
    fixed = ("scores=[inn]", f"inn.features=file:{file}", "inn.steps=2", f"inn.num={NUM_NEIGHBORS}")
    run = finish(tiny_config(tmp_path / "run", *fixed))
    assert run.config.role_names() == ("main",)
    assert_defined(run, features, [0, 0.5, 1], [0.25, 0.5, 0.25])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": None}, "expected columns key and features, found key, shard"),
        ({"key": ["same"] * 99, "shard": None}, r"some keys are there twice \(key 'same'\); add a column shard"),
        ({"key": [f"other{i}" for i in range(99)]}, "no features for key '"),
    ],
)
def test_a_file_of_features_that_cannot_be_used(
    changes: dict[str, list[str] | None], said: str, scored: Run, tmp_path: Path
) -> None:
    num_rows = scored.catalog.num_rows
    cut = {name: values and values[:num_rows] for name, values in changes.items()}
    file = features_file(tmp_path / "features.parquet", scored, np.zeros((num_rows, 3)), **cut)
    job = features_job(scored.catalog, str(file), "mark", 16)
    with pytest.raises(InputError, match=said):
        job.open()(job.units()[0])


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (pa.array([1.0, 2.0]), "expected features as lists of numbers, found double"),
        (pa.array([["1"], ["2"]]), "expected features as lists of numbers, found list"),
        (pa.array([[None, None]] * 2, pa.list_(pa.string())), "expected features as lists of numbers, found list"),
    ],
)
def test_a_column_that_holds_no_features(features: pa.Array, said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a", "b"], "features": features}), tmp_path / "f.parquet")
    with pytest.raises(ConfigError, match=said):
        check_features(str(tmp_path / "f.parquet"))


@pytest.mark.parametrize("odd", [[1.0, None], [1e6, 1.0], [math.nan, 1.0], None, [1.0], [1.0, 2.0, 3.0]])
def test_features_that_are_none(odd: list[float | None] | None, tmp_path: Path) -> None:
    features = pa.array([[0.5, 1.0], [65_504.0, -1.0], odd])
    pq.write_table(pa.table({"key": ["a", "b", "c"], "features": features}), tmp_path / "f.parquet")
    given = open_given(FileFeatures(str(tmp_path / "f.parquet")), "inn.features")
    assert strict_features(given, "s", ["b", "a"]).tolist() == [[65_504.0, -1.0], [0.5, 1.0]]
    with pytest.raises(InputError, match=r"inn.features .*'c' of s are missing, not of one length \(2 .*too large"):
        strict_features(given, "s", ["a", "c"])


def test_a_file_of_features_that_is_cut_stops_the_run(tiny_config: Tiny, tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "features": [[1.0]]}), tmp_path / "f.parquet")
    whole = (tmp_path / "f.parquet").read_bytes()
    for num in (0, len(whole) // 2):
        (tmp_path / "f.parquet").write_bytes(whole[:num])
        with pytest.raises(ConfigError, match=r"inn\.features .*f\.parquet: cannot be read, is it whole"):
            look_before(tiny_config(tmp_path / "run", "scores=[inn]", f"inn.features=file:{tmp_path}/f.parquet"))


def test_a_file_that_is_not_there(tiny_config: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"inn.features: .*nowhere.parquet: no file matches; check the path"):
        look_before(tiny_config(tmp_path / "run", "scores=[inn]", f"inn.features=file:{tmp_path}/nowhere.parquet"))
