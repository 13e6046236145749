"""Runs on features in this process: what is looked at, once; what is lost comes back; what heads have not seen."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from rayclean import LabelScorer
from rayclean.catalog.features import RowFeatures
from rayclean.config import parse_config
from rayclean.errors import ConfigError, InputError
from rayclean.run.pipeline import run
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.shards.write import Sample, write_shards
from rayclean.storage.contents import map_arrays, read_json
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from rayclean.train.heads import HeadSettings
from rayclean.train.models import build_model
from rayclean.train.snapshots import publish_weights
from tests.helpers import png_bytes
from tools.faults.driver import labels as table_bytes

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_ROWS, NUM_CLASSES, SHARD_ROWS = 150, 3, 50
HEADS: dict[str, Any] = {"weight_decays": [0.03, 1.0], "folds": 3, "batch_size": 16, "epochs": 5}


def npy(values: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def made(num_rows: int = NUM_ROWS, seed: int = 0) -> tuple[Array, Array, Array]:
    """Features (N, 12) that know the class, given labels and true ones."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, NUM_CLASSES, num_rows)
    features = (rng.normal(size=(num_rows, 12)) + 4 * np.eye(12)[truth]).astype(np.float16)
    return features, np.where(rng.random(num_rows) < 0.2, (truth + 1) % NUM_CLASSES, truth), truth


def samples(features: Array, labels: Array, start: int = 0) -> list[Sample]:
    return [
        (f"{start + row:05d}", {"npy": npy(values), "cls": str(label).encode()})
        for row, (values, label) in enumerate(zip(features, labels.tolist(), strict=True))
    ]


Go = Callable[..., Run]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Does a run on shards with features as members; sections are replaced field by field."""

    def do(name: str = "run", **sections: Any) -> Run:
        tree: dict[str, Any] = {
            "run": {"dir": str(tmp_path / name), "executor": "inline", "keep": "all"},
            "data": {"shards": f"{tmp_path}/shards/*.tar", "classes": NUM_CLASSES, "features": "npy", "image": "none"},
            "train": HEADS,
            "blocks": {"rows": 40, "index_rows": 60, "table_rows": 80},
        }
        for section, fields in sections.items():
            tree[section] = {**tree.get(section, {}), **fields} if isinstance(fields, dict) else fields
        return run(parse_config(tree, "test"), None, Console(quiet=True))[0]

    return do


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of samples with features and no image."""
    features, labels, _ = made()
    write_shards(str(tmp_path / "shards"), "made", samples(features, labels), SHARD_ROWS)
    return tmp_path / "shards"


def facts_of(this: Run, stage: str) -> dict[str, float]:
    """Counts of a stage's jobs over all starts."""
    found: dict[str, float] = {}
    for name in this.store.list("record"):
        for entry in read_json(this.store, f"record/{name}"):
            if entry["step"] == stage and "facts" in entry:
                for fact, count in entry["facts"].items():
                    found[fact] = found.get(fact, 0) + count
    return found


def table_of(this: Run) -> Any:
    table = Published.open(this.store)
    return pa.concat_tables([table.read(part) for part in table.parts])


def test_a_table_of_features_alone(go: Go, shards: Path) -> None:
    this = go()
    table, (_, labels, truth) = table_of(this), made()
    assert table["key"].to_pylist() == [f"{row:05d}" for row in range(NUM_ROWS)]
    right = table["label_score"].to_numpy()
    assert right[labels != truth].mean() < 0.3 < 0.7 < right[labels == truth].mean()
    assert {"score_loss_oof", "score_margin_oof", "score_iofm_last", "score_odd"} <= set(table.column_names)
    assert "decodes" not in facts_of(this, "catalog")


def test_the_run_is_what_the_scorer_gives(go: Go, shards: Path) -> None:
    this = go(blocks={"rows": 4000, "index_rows": 100_000, "table_rows": 1_000_000})
    features, labels, _ = made()
    table = table_of(this)
    heads = HeadSettings(weight_decays=(0.03, 1.0), folds=3, batch_size=16, epochs=5)
    found = LabelScorer().fit_features(features, labels, table["key"].to_pylist(), num_classes=NUM_CLASSES, heads=heads)
    assert found.labels_.column_names == table.column_names
    for name in table.column_names:
        if name != "shard":
            assert found.labels_[name].to_pylist() == table[name].to_pylist(), name


def test_a_shard_more_is_looked_at_alone(go: Go, shards: Path, tmp_path: Path) -> None:
    weights = frozen_network(tmp_path)
    pictures(tmp_path / "shards", 2)
    frozen = {"model": weights, "data": {"features": None, "image": "png"}}
    first = go(**frozen)
    assert facts_of(first, "catalog")["forwards"] == facts_of(first, "catalog")["decodes"] == 40
    pictures(tmp_path / "shards", 3)
    again = go(**frozen)
    assert again.catalog.fingerprint != first.catalog.fingerprint
    assert facts_of(again, "catalog")["forwards"] == facts_of(again, "catalog")["decodes"] == 60
    whole = go("whole", **frozen)
    assert table_bytes(Path(again.store.root)) == table_bytes(Path(whole.store.root))
    go("whole", **frozen, train={"epochs": 2}, run={"seed": 1})
    assert facts_of(whole, "catalog")["forwards"] == 60, "another seed and other heads look at nothing again"


def frozen_network(folder: Path) -> dict[str, Any]:
    """A config's section for a network of ours whose weights are there."""
    network, store = build_model("small_resnet", NUM_CLASSES, width=4, seed=3), Store(str(folder))
    publish_weights(store, "weights.safetensors", network)
    file = str(folder / "weights.safetensors")
    return {"name": "small_resnet", "width": 4, "weights": file, "frozen": True, "size": 8}


def pictures(folder: Path, num_shards: int) -> None:
    """Shards of twenty pictures each, two of which are the same one; others there are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    found = [
        (f"{row:05d}", {"png": png_bytes(row if row != 7 else 3), "cls": str(row % NUM_CLASSES).encode()})
        for row in range(20 * num_shards)
    ]
    write_shards(str(folder), "pictures", found, 20)


LOST = (
    "features-*/*.safetensors",
    "catalog-*/rows/*.parquet",
    "embed-*/0*.safetensors",
    "train-main-*/heads.safetensors",
    "train-main-*/decay-*/snapshots/*.safetensors",
    "train-main-*/decay-*/trajectories/epoch-0002/*.parquet",
    "train-main-*/blind/trajectories/*/*.parquet",
    "interpolate-*/*.safetensors",
    "merge-*/*",
)


@pytest.mark.parametrize("pattern", LOST)
def test_what_is_lost_comes_back_with_the_same_bytes(go: Go, shards: Path, pattern: str) -> None:
    this = go()
    folder = Path(this.store.root)
    lost = sorted(path for path in folder.glob(pattern) if not path.name.startswith("_"))[-1]
    whole, before = table_bytes(folder), lost.read_bytes()
    lost.unlink()
    shutil.rmtree(folder / "labels")
    go()
    assert lost.read_bytes() == before
    assert table_bytes(folder) == whole


def test_a_damaged_file_of_features_is_made_again(go: Go, shards: Path) -> None:
    this = go()
    file = next(Path(this.store.root).glob("features-*/*.safetensors"))
    whole, before = table_bytes(Path(this.store.root)), file.read_bytes()
    file.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    shutil.rmtree(Path(this.store.root) / "labels")
    for kept in ("embed-*", "train-*", "neighbors-*", "interpolate-*", "merge-*"):
        for folder in Path(this.store.root).glob(kept):
            shutil.rmtree(folder)
    go()
    assert file.read_bytes() == before
    assert table_bytes(Path(this.store.root)) == whole


@pytest.mark.parametrize("fold", range(3))
def test_a_head_has_not_seen_the_labels_of_its_fold(go: Go, shards: Path, fold: int) -> None:
    one = go("one")
    features, labels, _ = made()
    folds = one.heads.task.folds()
    changed = np.where(folds == fold, (labels + 1) % NUM_CLASSES, labels)
    write_shards(str(shards), "made", samples(features, changed), SHARD_ROWS)
    other = go("other")
    np.testing.assert_array_equal(other.heads.task.folds(), folds)
    heads = [map_arrays(each.store, f"{each.heads.task.folder}/heads.safetensors") for each in (one, other)]
    for decay in range(2):
        for index in range(4):
            same = all(
                np.array_equal(heads[0][name][decay * 4 + index], heads[1][name][decay * 4 + index])
                for name in ("weight", "bias")
            )
            assert same == (index == fold), "heads that have seen the labels differ"


def test_the_order_of_shards_changes_neither_folds_nor_features(go: Go, shards: Path) -> None:
    one = go("one")
    for number, name in enumerate(("b", "a", "c")):
        (shards / f"made-{number:06d}.tar").rename(shards / f"{name}.tar")
    other = go("other")
    keys = [table_of(each)["key"].to_pylist() for each in (one, other)]
    assert keys[0] != keys[1]
    order = [keys[1].index(key) for key in keys[0]]
    np.testing.assert_array_equal(one.heads.task.folds(), other.heads.task.folds()[order])
    rows = np.arange(NUM_ROWS)
    np.testing.assert_array_equal(RowFeatures(one.catalog).read(rows), RowFeatures(other.catalog).read(rows)[order])


def test_two_kinds_of_features_are_not_mixed(go: Go, shards: Path) -> None:
    features, labels, _ = made()
    more = np.concatenate([features[:50], features[:50]], axis=1)
    write_shards(str(shards), "other", samples(more, labels[:50], 1000), 50)
    with pytest.raises(InputError, match=r"other-000000.tar: its samples have 24 features, those of .* have 12"):
        go()


@pytest.mark.parametrize(
    "names", [["loss", "vote", "odd"], ["iofm", "inn", "osm", "loss_ce", "aum_ce_ne", "aum_excess"]]
)
def test_scores_that_are_named(go: Go, shards: Path, names: Sequence[str]) -> None:
    columns = table_of(go(scores=list(names))).column_names
    assert {f"score_{name}" for name in (*names, "loss_oof", "margin_oof")} == {
        name for name in columns if name.startswith("score_")
    }


def test_clips_have_a_table_of_their_own(go: Go, tmp_path: Path) -> None:
    features, labels, _ = made(60)
    labels = np.repeat(labels[::3], 3)
    found: list[Sample] = [
        (key, {"npy": members["npy"], "json": b'{"label": %d, "clip": "c%d"}' % (labels[row], row // 3)})
        for row, (key, members) in enumerate(samples(features, labels))
    ]
    write_shards(str(tmp_path / "shards"), "made", found, 20)
    this = go(data={"label": "json:label", "group": "json:clip"})
    table = Published.open(this.store)
    assert this.catalog.num_rows == 60
    clips = pa.concat_tables([table.read(file) for file in table.of_kind("clips")])
    assert clips.num_rows == 20
    assert set(clips["frames"].to_pylist()) == {3}
    assert len(np.unique(this.heads.task.folds().reshape(-1, 3), axis=1)[0]) == 1


def test_heads_of_an_earlier_run_judge_new_shards(go: Go, shards: Path, tmp_path: Path) -> None:
    old = go("old")
    features, labels, truth = made(60, seed=5)
    shutil.rmtree(shards)
    write_shards(str(shards), "new", samples(features, labels, 1000), 20)
    new = go("new", train={"from": old.store.root})
    table = table_of(new)
    right = table["label_score"].to_numpy()
    assert table.num_rows == 60
    assert right[labels != truth].mean() < right[labels == truth].mean() - 0.2
    assert "score_aum" not in table.column_names
    assert {"score_loss", "score_loss_oof", "score_iofm_last"} <= set(table.column_names)
    heads = [map_arrays(each.store, f"{each.heads.task.folder}/heads.safetensors") for each in (old, new)]
    np.testing.assert_array_equal(heads[0]["weight"], heads[1]["weight"])
    model = read_json(new.store, f"{new.merge()[0].folder}/model.json")["model"]
    assert model["num_rows"] == NUM_ROWS, "it is fitted to the rows of then"
    assert set(model["sources"]["blind"]) <= {"head 0.03", "head 1"}
    again = table_bytes(Path(new.store.root))
    shutil.rmtree(Path(new.store.root) / new.heads.task.folder)
    go("new", train={"from": old.store.root})
    assert table_bytes(Path(new.store.root)) == again


def test_heads_of_other_features_are_refused(go: Go, shards: Path, tmp_path: Path) -> None:
    old = go("old")
    pictures(shards, 1)
    other = {"model": frozen_network(tmp_path), "data": {"features": None, "image": "png"}}
    with pytest.raises(InputError, match=r"train.from .*: its heads are of features-.* found features-.*same network"):
        go("new", train={"from": old.store.root}, **other)
    with pytest.raises(ConfigError, match=r"train\.from .* expected the folder or URL of a run on features"):
        go("new", train={"from": str(tmp_path)}, **other)
    with pytest.raises(ConfigError, match=r"score aum needs epochs, but with train\.from"):
        go("new", train={"from": old.store.root}, scores=["aum"], **other)


def test_hidden_heads(go: Go, shards: Path) -> None:
    _, labels, truth = made()
    this = go(train={"head": "hidden"})
    right = table_of(this)["label_score"].to_numpy()
    assert right[labels != truth].mean() < right[labels == truth].mean()


def test_device_names_nothing(go: Go, shards: Path) -> None:
    """What computes is no part of a name: heads on another device would go on with these."""
    task = go().heads.task
    assert replace(task, device="cuda", threads=7).folder == task.folder
    assert torch.device(task.device).type == "cpu"
