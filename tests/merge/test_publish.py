"""`labels/`: either complete, with a manifest that fits, or known to be incomplete."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.config import Config
from rayclean.errors import DamagedFile, InputError
from rayclean.merge.publish import _most_common, publish_labels
from rayclean.merge.stage import _class_counts
from rayclean.run.run import Run
from rayclean.schema import NONE_OF_CLASSES
from rayclean.storage.contents import encode, read_table
from rayclean.storage.published import (
    CLASSES,
    EARLIER_MANIFEST,
    LABELS,
    MANIFEST,
    PART,
    SUMMARY,
    TABLES,
    Published,
    find_published,
)
from rayclean.storage.store import Store

NAMES = [str(i) for i in range(6)]


@pytest.fixture
def run(tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path) -> Run:
    return finish(tiny_config(tmp_path))


def labels_of(store: Store) -> dict[str, bytes]:
    return {f"{f}/{name}": store.read(f"{f}/{name}") for f in (LABELS, TABLES) for name in store.list(f)}


def test_the_manifest_names_every_file_as_it_is(run: Run) -> None:
    published = Published.open(run.store)
    assert (published.merge, published.names) == (run.merge()[1].folder, tuple(NAMES))
    found = labels_of(run.store)
    assert {entry.path for entry in published.files} == set(found) - {MANIFEST}
    for entry in published.files:
        assert entry.num_bytes == len(found[entry.path])
        assert entry.sha256 == hashlib.sha256(found[entry.path]).hexdigest()
        assert entry.fits(found[entry.path])
    assert published.is_whole()
    assert pickle.loads(pickle.dumps(published)).files == published.files


def test_the_folder_of_labels_holds_the_parts_alone(run: Run) -> None:
    parts = Published.open(run.store).parts
    assert sorted(run.store.list(LABELS)) == sorted(part.rpartition("/")[2] for part in parts)


def test_parts_are_the_merges_and_follow_each_other(run: Run) -> None:
    parts, job = Published.open(run.store).parts, run.merge()[1]
    assert len(parts) == 2
    assert [run.store.read(part) for part in parts] == [run.store.read(job.file(unit)) for unit in job.units()]
    rows = [row for part in parts for row in read_table(run.store, part)["row"].to_pylist()]
    assert rows == list(range(run.catalog.num_rows))


def test_no_path_nor_host_is_in_the_tables_bytes(run: Run) -> None:
    import socket

    for part in Published.open(run.store).parts:
        data = run.store.read(part)
        assert run.store.path.encode() not in data
        assert socket.gethostname().encode() not in data
        assert str(Path(str(run.config.data.shards)).parent).encode() not in data


def test_publishing_again_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = labels_of(run.store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", lambda *_: pytest.fail("nothing is to be written"))
        summary = publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before
    assert summary == Published.open(run.store).summary()


@pytest.mark.parametrize("fails_at", range(5))
def test_a_publication_that_breaks_off_leaves_the_table_that_was_there(
    fails_at: int, run: Run, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    before = labels_of(run.store)
    publish, count = Store.publish, [0]

    def breaks(self: Store, name: str, data: bytes | memoryview) -> None:
        if name.startswith((LABELS, TABLES)):
            count[0] += 1
            if count[0] > fails_at:
                raise OSError("disk full")
        publish(self, name, data)

    other = tiny_config(tmp_path, "merge.score=loss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "publish", breaks)
        with pytest.raises(OSError, match="disk full"):
            finish(other)
    published = Published.open(run.store)
    assert published.is_whole()
    assert {entry.path for entry in published.files} == before.keys() - {MANIFEST}
    assert len(labels_of(run.store)) == len(before) + fails_at  # of the new one, what no manifest names
    finished = finish(other)
    assert {entry.path for entry in Published.open(finished.store).files} == labels_of(run.store).keys() - {MANIFEST}


def test_another_merge_takes_the_place_of_the_old_one(
    run: Run, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    before = labels_of(run.store)
    other = finish(tiny_config(tmp_path, "merge.score=loss", "blocks.table_rows=64"))
    found = labels_of(other.store)
    assert not (before.keys() - {MANIFEST}) & found.keys()
    published = Published.open(other.store)
    assert (published.merge, len(published.parts)) == (other.merge()[1].folder, 1)
    assert published.summary()["merge_score"] == "loss"
    again = finish(tiny_config(tmp_path))  # nothing was overwritten: the first merge is still there
    assert labels_of(again.store) == before


def test_what_somebody_else_puts_there_stays(run: Run) -> None:
    strangers = [f"{LABELS}/notes.txt", f"{LABELS}/part-of-mine.parquet", f"{TABLES}/summary.xlsx"]
    stale = [f"{LABELS}/part-0badf00d-00000.parquet", f"{LABELS}/classes.parquet"]
    stale += [f"{TABLES}/clips-0badf00d-00001.parquet"]
    for name in (*strangers, *stale):
        run.store.publish(name, b"-")
    publish_labels(run.merge()[1], NAMES)
    assert all(run.store.exists(name) for name in strangers)
    assert not any(run.store.exists(name) for name in stale)


@pytest.mark.parametrize("kind", [PART, SUMMARY, CLASSES])
@pytest.mark.parametrize("how", ["lost", "half", "flipped", "another"])
def test_a_file_that_is_damaged_is_noticed_and_put_back(kind: str, how: str, run: Run) -> None:
    before, path = labels_of(run.store), Published.open(run.store).of_kind(kind)[0]
    data = bytearray(before[path])
    if how == "lost":
        run.store.remove(path)
    elif how == "half":
        run.store.publish(path, bytes(data[: len(data) // 2]))
    elif how == "flipped":
        data[len(data) // 2] ^= 1
        run.store.publish(path, bytes(data))
    else:  # whole by itself, but not the one that the manifest names
        run.store.publish(path, encode(path, {"a": 1} if kind == SUMMARY else pa.table({"row": [1]}), "{}"))
    with pytest.raises(DamagedFile, match=path):
        Published.open(run.store).check(path)
    publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"merge": 1}', b'{"merge": "", "classes": 3, "files": [{}]}']
)
def test_a_manifest_that_cannot_be_read_is_one_line(data: bytes, run: Run) -> None:
    before = labels_of(run.store)
    run.store.publish(MANIFEST, data)
    with pytest.raises(DamagedFile, match=MANIFEST):
        Published.open(run.store)
    publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before


def test_a_table_of_an_earlier_release_is_read_and_takes_todays_place(run: Run) -> None:
    new, before = Published.open(run.store), labels_of(run.store)
    names = {PART: "part-{:05d}.parquet", CLASSES: "classes.parquet", SUMMARY: "summary.json"}
    entries = []
    for kind, name in names.items():
        for number, path in enumerate(new.of_kind(kind)):
            data = run.store.read(path)
            run.store.publish(f"{LABELS}/{name.format(number)}", data)
            sha256 = hashlib.sha256(data).hexdigest()
            entries.append({"name": name.format(number), "bytes": len(data), "sha256": sha256})
    manifest = {"merge": new.merge, "files": entries}
    run.store.publish(EARLIER_MANIFEST, json.dumps(manifest).encode())
    run.store.remove(MANIFEST)
    old = Published.open(run.store)
    assert old.parts == tuple(f"{LABELS}/part-{number:05d}.parquet" for number in range(2))
    assert (old.merge, old.names, old.digest) == (new.merge, new.names, new.digest)
    assert old.summary() == new.summary()
    assert old.classes().equals(new.classes())
    publish_labels(run.merge()[1], NAMES)
    assert labels_of(run.store) == before


def test_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete table"):
        Published.open(Store(str(tmp_path)))
    assert find_published(Store(str(tmp_path))) is None


def test_counts_add_up_to_the_table(run: Run) -> None:
    names = [name for name in run.store.list("labels") if name.startswith("part-")]
    rows = pa.concat_tables([read_table(run.store, f"labels/{name}") for name in names]).to_pandas()
    classes = Published.open(run.store).classes().to_pandas()
    summary = Published.open(run.store).summary()
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
    assert summary["calibrated"] == "none"
    np.testing.assert_allclose(summary["noise_rate"], (1 - rows["label_score"].astype(float)).mean(), rtol=1e-9)


def test_rows_that_are_predicted_to_be_of_none_of_the_classes_are_counted() -> None:
    table = pa.table(
        {
            "given_label": pa.array([0, 0, 0, 1, 1], pa.int32()),
            "label_score": pa.array([0.1, 0.2, 0.3, 0.1, 0.9], pa.float32()),
            "is_label_issue": [True, True, True, True, False],
            "predicted_label": pa.array([NONE_OF_CLASSES, NONE_OF_CLASSES, 1, 0, NONE_OF_CLASSES], pa.int32()),
        }
    )
    counts = _class_counts(table, 2)
    assert counts["moved"].tolist() == [[0, 1, 2], [1, 0, 0]]
    assert _most_common(counts["moved"]).tolist() == [NONE_OF_CLASSES, 0]
    assert counts["rows"].tolist() == [3, 2]


def test_classes_without_rows_are_there(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path, "data.classes=[a, b, c, d, e, f, g, h]", "train.epochs=1", "train.from="))
    classes = Published.open(run.store).classes().to_pylist()
    assert [row["name"] for row in classes] == list("abcdefgh")
    assert [row["rows"] for row in classes][-2:] == [0, 0]
    assert [row["noise_rate"] for row in classes][-2:] == [None, None]


def test_matrix_prior_and_noise_rates_of_classes_are_one_story(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> None:
    run = finish(tiny_config(tmp_path / "run"))
    published = Published.open(run.store)
    classes, rows = published.classes(), published.summary()["rows"]
    transition, prior = np.array(classes["transition"].to_pylist()), classes["prior"].to_numpy()
    np.testing.assert_allclose(transition.sum(axis=1), 1)
    of_given = prior[:, None] * transition * rows  # (true, given) rows
    none = classes["rows"].to_numpy() - of_given.sum(axis=0)
    assert none.min() > -1e-6
    wrong = of_given.sum(axis=0) - np.diag(of_given) + none
    # label_score is bounded (monotone.squash), the matrix is of what it is before that.
    np.testing.assert_allclose(wrong, classes["noise_rate"].to_numpy() * classes["rows"].to_numpy(), atol=0.02 * rows)
    plain = finish(tiny_config(tmp_path / "plain", "merge.score=loss"))
    classes = Published.open(plain.store).classes()
    assert classes["transition"].null_count == classes["prior"].null_count == len(NAMES)
