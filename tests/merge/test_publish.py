"""`labels/`: either complete, with a manifest that fits, or known to be incomplete."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.config import Config
from rayclean.errors import InputError
from rayclean.merge.publish import MANIFEST, check_labels, publish_labels
from rayclean.run import Run
from rayclean.storage.contents import read_json, read_table
from rayclean.storage.store import Store

NAMES = [str(i) for i in range(6)]


@pytest.fixture
def run(tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path) -> Run:
    return finish(tiny_config(tmp_path))


def labels_of(store: Store) -> dict[str, bytes]:
    return {name: store.read(f"labels/{name}") for name in store.list("labels")}


def test_the_manifest_names_every_file_as_it_is(run: Run) -> None:
    manifest = check_labels(run.store)
    assert manifest == read_json(run.store, MANIFEST)
    assert manifest["merge"] == run.merge()[1].folder
    found = labels_of(run.store)
    assert {entry["name"] for entry in manifest["files"]} == set(found) - {"_manifest.json"}
    for entry in manifest["files"]:
        assert entry["bytes"] == len(found[entry["name"]])
        assert entry["sha256"] == hashlib.sha256(found[entry["name"]]).hexdigest()


def test_parts_are_the_merges_and_follow_each_other(run: Run) -> None:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    assert len(names) == 2
    folder = run.merge()[1].folder
    assert all(run.store.read(f"labels/{name}") == run.store.read(f"{folder}/{name}") for name in names)
    rows = [row for name in names for row in read_table(run.store, f"labels/{name}")["row"].to_pylist()]
    assert rows == list(range(run.catalog.num_rows))


def test_no_path_nor_host_is_in_the_tables_bytes(run: Run) -> None:
    import socket

    for name, data in labels_of(run.store).items():
        if name.startswith("part-"):
            assert run.store.path.encode() not in data
            assert socket.gethostname().encode() not in data
            assert str(Path(str(run.config.data.shards)).parent).encode() not in data


def test_publishing_again_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = labels_of(run.store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", lambda *_: pytest.fail("nothing is to be written"))
        summary = publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before
    assert summary == read_json(run.store, "labels/summary.json")


@pytest.mark.parametrize("fails_at", range(4))
def test_a_publication_that_breaks_off_is_not_taken_for_complete(
    fails_at: int,
    run: Run,
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = labels_of(run.store)
    run.store.publish("labels/part-00009.parquet", b"of an older, larger table")
    run.store.remove(MANIFEST)
    publish, count = Store.publish, [0]

    def breaks(self: Store, name: str, data: bytes | memoryview) -> None:
        count[0] += 1
        if count[0] > fails_at:
            raise OSError("disk full")
        publish(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", breaks)
        with pytest.raises(OSError, match="disk full"):
            publish_labels(run.merge()[1], NAMES)
    with pytest.raises(InputError, match="no complete table"):
        check_labels(run.store)
    publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == expected  # the stale part is gone
    check_labels(run.store)


def test_another_merge_takes_the_place_of_the_old_one(
    run: Run, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    before = labels_of(run.store)
    other = finish(tiny_config(tmp_path, "merge.score=loss", "blocks.table_rows=64"))
    found = labels_of(other.store)
    assert "part-00001.parquet" not in found
    assert check_labels(other.store)["merge"] != run.merge()[1].folder
    assert read_json(other.store, "labels/summary.json")["merge_score"] == "loss"
    again = finish(tiny_config(tmp_path))  # nothing was overwritten: the first merge is still there
    assert labels_of(again.store) == before


@pytest.mark.parametrize("lost", ["part-00000.parquet", "summary.json", "classes.parquet"])
def test_a_file_that_is_lost_is_noticed_and_put_back(lost: str, run: Run) -> None:
    before = labels_of(run.store)
    run.store.remove(f"labels/{lost}")
    with pytest.raises(InputError, match=rf"lacks {lost}"):
        check_labels(run.store)
    publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before


def test_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete table"):
        check_labels(Store(str(tmp_path)))


def test_counts_add_up_to_the_table(run: Run) -> None:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    rows = pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names]).to_pandas()
    classes = read_table(run.store, "labels/classes.parquet").to_pandas()
    summary = read_json(run.store, "labels/summary.json")
    assert classes["name"].tolist() == NAMES
    for label, row in classes.iterrows():
        mine = rows[rows["given_label"] == label]
        issues = mine[mine["is_label_issue"]]
        assert (row["rows"], row["issues"]) == (len(mine), len(issues))
        np.testing.assert_allclose(row["noise_rate"], (1 - mine["label_score"].astype(float)).mean(), rtol=1e-9)
        if len(issues):
            counts = issues["predicted_label"].value_counts()
            assert counts[row["predicted"]] == counts.max()
        else:
            assert np.isnan(row["predicted"])
    assert summary["rows"] == len(rows) == summary["samples"] - sum(summary["quarantined"].values())
    assert summary["issues"] == rows["is_label_issue"].sum()
    np.testing.assert_allclose(summary["noise_rate"], (1 - rows["label_score"].astype(float)).mean(), rtol=1e-9)


def test_classes_without_rows_are_there(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path, "data.classes=[a, b, c, d, e, f, g, h]", "train.epochs=1", "train.from="))
    classes = read_table(run.store, "labels/classes.parquet").to_pylist()
    assert [row["name"] for row in classes] == list("abcdefgh")
    assert [row["rows"] for row in classes][-2:] == [0, 0]
    assert [row["noise_rate"] for row in classes][-2:] == [None, None]


def test_classes_have_the_joint_models_matrix(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run"))
    classes = read_table(run.store, "labels/classes.parquet")
    model = read_json(run.store, run.merge()[0].file("model"))["model"]
    transition = np.array(classes["transition"].to_pylist())
    np.testing.assert_array_equal(transition, model["transition"])
    np.testing.assert_allclose(transition.sum(axis=1), 1)
    np.testing.assert_array_equal(classes["prior"].to_numpy(), model["prior"])
    plain = finish(tiny_config(tmp_path / "plain", "merge.score=loss"))
    classes = read_table(plain.store, "labels/classes.parquet")
    assert classes["transition"].null_count == classes["prior"].null_count == len(NAMES)
