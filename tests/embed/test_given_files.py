"""Features in Parquet files and in folders of clip-retrieval, asked by shard and key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from rayclean.embed.given import ClipRetrieval, FileFeatures, GivenFeatures, given_digest, open_given
from rayclean.embed.given_names import Names
from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array


def write(path: Path, keys: list[str], features: Any, shards: list[str] | None = None, **options: Any) -> Path:
    columns: dict[str, Any] = {"key": keys, options.pop("column", "features"): features}
    if shards is not None:
        columns["shard"] = shards
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def opened(pattern: Path | str) -> GivenFeatures:
    return open_given(FileFeatures(str(pattern)))


def clip_folder(folder: Path, parts: list[tuple[Array, list[str]]]) -> ClipRetrieval:
    (folder / "img_emb").mkdir(parents=True, exist_ok=True)
    for number, (matrix, keys) in enumerate(parts):
        np.save(folder / f"img_emb/img_emb_{number}.npy", matrix)
        path = folder / f"metadata/metadata_{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"image_path": keys, "key": keys, "caption": ["x"] * len(keys)}), path)
    return ClipRetrieval(str(folder))


KINDS = [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.float16()), pa.list_(pa.int32())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("column", ["features", "embedding"])
def test_rows_come_in_the_order_of_the_keys(kind: pa.DataType, column: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-9, 9, (50, 3))
    keys = [f"k{i}" for i in range(50)]
    for name, part in (("a", slice(0, 20)), ("b", slice(20, 50))):
        lists = pa.array(values[part].tolist(), pa.list_(pa.int32())).cast(kind) if "half" not in str(kind) else None
        lists = lists or pa.array([[np.float16(x) for x in row] for row in values[part]], kind)
        write(tmp_path / f"{name}.parquet", keys[part], lists, column=column, row_group_size=7)
    found = opened(tmp_path / "*.parquet")
    order = np.random.default_rng(1).permutation(50)
    features, there = found.of_shard("any", [keys[i] for i in order])
    assert features.dtype == np.float32
    assert there.all()
    np.testing.assert_array_equal(features, values[order])
    assert (found.dim, found.num_rows) == (3, 50)


def test_brace_ranges_and_urls_name_files(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.parquet", [f"k{number}"], [[float(number)]])
    for pattern in (f"{tmp_path}/{{0..1}}.parquet", f"file://{tmp_path}/*.parquet"):
        assert opened(pattern).of_shard("s", ["k1", "k0"])[0].tolist() == [[1], [0]]


def test_files_of_an_object_store(tmp_path: Path) -> None:
    import fsspec

    content = write(tmp_path / "a.parquet", ["a", "b"], [[1.0], [2.0]], row_group_size=1).read_bytes()
    fsspec.filesystem("memory").pipe("/given/a.parquet", content)
    found = opened("memory://given/*.parquet")
    assert found.of_shard("s", ["b", "x"])[0].tolist()[0] == [2]
    before = given_digest(FileFeatures("memory://given/*.parquet"))
    fsspec.filesystem("memory").pipe("/given/a.parquet", content + b" ")
    assert given_digest(FileFeatures("memory://given/*.parquet")) != before


def test_with_a_column_shard_keys_may_repeat(tmp_path: Path) -> None:
    found = opened(write(tmp_path / "a.parquet", ["a", "a"], [[1.0], [2.0]], ["x.tar", "y.tar"]))
    assert found.of_shard("y.tar", ["a"])[0].tolist() == [[2]]
    assert found.of_shard("z.tar", ["a"])[1].tolist() == [False]


def test_rows_that_are_not_there_or_of_no_use_are_told_apart(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2], None, [1.0], [1.0, None], [1.0, np.nan], [1.0, np.inf], [1.0, 1e300], []])
    found = opened(write(tmp_path / "a.parquet", list("abcdefgh"), lists, row_group_size=3))
    features, there = found.of_shard("s", list("xabcdefgh"))
    assert there.tolist() == [False] + [True] * 8
    assert features[1].tolist() == [1, 2]
    assert np.isnan(np.delete(features, 1, axis=0)).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: write(p / "a.parquet", ["a", "a"], [[1.0]] * 2), r"keys are there twice \(key 'a'\); add a column"),
        (
            lambda p: write(p / "a.parquet", ["a", "a"], [[1.0]] * 2, ["s", "s"]),
            r"there twice \(key 'a', shard 's'\)$",
        ),
        (
            lambda p: [write(p / "a.parquet", ["a"], [[1.0]]), write(p / "b.parquet", ["a"], [[1.0]])],
            "some keys are there twice",
        ),
        (
            lambda p: [write(p / "a.parquet", ["a"], [[1.0]], ["s"]), write(p / "b.parquet", ["b"], [[1.0]])],
            "some files have a column shard and some not",
        ),
        (lambda p: write(p / "a.parquet", ["a"], [[1.0]], column="emb"), "no column features; .* found key, emb"),
        (lambda p: write(p / "a.parquet", ["a"], [["x"]]), "expected features as lists of numbers, found list"),
        (
            lambda p: pq.write_table(pa.table({"key": ["a"], "features": [[1]], "embedding": [[1]]}), p / "a.parquet"),
            "has columns features and embedding; leave one of them",
        ),
        (lambda p: write(p / "a.parquet", [], pa.array([], pa.list_(pa.float32()))), "found no features in it"),
        (lambda p: write(p / "a.parquet", ["a"], pa.array([None], pa.list_(pa.float32()))), "found no features in it"),
        (lambda p: (p / "a.parquet").write_bytes(b"PAR1 no more"), "cannot be read, is it whole"),
        (lambda p: None, r"data.features: .*\*.parquet: no file matches"),
    ],
)
def test_files_that_cannot_be_used(make: Any, said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises((ConfigError, InputError), match=said) as caught:
        opened(tmp_path / "*.parquet")
    assert str(caught.value).startswith("data.features")


def test_a_folder_of_clip_retrieval(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float16)
    keys = [f"{i:09d}" for i in range(12)]
    parts = [(values[:1], keys[:1]), *((values[i : i + 1], keys[i : i + 1]) for i in range(1, 11))]
    source = clip_folder(tmp_path, [*parts, (values[11:].astype(np.float32), keys[11:])])
    found = open_given(source)
    features, there = found.of_shard("00000.tar", keys[::-1])
    assert there.all()
    np.testing.assert_array_equal(features, values[::-1].astype(np.float32))
    before = given_digest(source)
    assert given_digest(source) == before
    os.utime(tmp_path / "img_emb/img_emb_3.npy", ns=(1, 1))
    assert given_digest(source) != before


def other_names(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / "metadata/metadata_0.parquet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: (p / "metadata/metadata_0.parquet").unlink(), "number 0 is in one folder alone"),
        (lambda p: (p / "img_emb/img_emb_0.npy").rename(p / "img_emb/0.npy"), "number 0 is in one folder alone"),
        (
            lambda p: other_names(p, pa.table({"image_path": ["a", "b"], "caption": ["x", "y"]})),
            r"metadata_0.parquet: no column key; expected columns key, found image_path, caption",
        ),
        (lambda p: other_names(p, pa.table({"key": ["a"]})), r"img_emb_0.npy: has 2 rows, but .*_0.parquet has 1"),
        (lambda p: other_names(p, pa.table({"key": ["a", "a"]})), "some keys are there twice"),
        (lambda p: np.save(p / "img_emb/img_emb_0.npy", np.zeros(2)), r"found shape \(2,\) of float64"),
        (lambda p: np.save(p / "img_emb/img_emb_0.npy", np.array([["x"]])), "expected numbers, "),
        (lambda p: (p / "img_emb/img_emb_0.npy").write_bytes(b""), "img_emb_0.npy: cannot be read, is it whole"),
    ],
)
def test_folders_of_clip_retrieval_that_cannot_be_used(change: Any, said: str, tmp_path: Path) -> None:
    source = clip_folder(tmp_path, [(np.zeros((2, 3), np.float16), ["a", "b"])])
    change(tmp_path)
    with pytest.raises((ConfigError, InputError), match=said):
        open_given(source)


@pytest.mark.parametrize(
    ("folder", "said"), [("s3://b/emb", "a folder on a disk of all nodes expected"), ("/no/such", "found neither")]
)
def test_folders_that_are_none(folder: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_given(ClipRetrieval(folder))


def test_a_part_of_another_width_is_of_no_use(tmp_path: Path) -> None:
    source = clip_folder(tmp_path, [(np.ones((1, 3)), ["a"]), (np.ones((1, 2)), ["b"])])
    features, there = open_given(source).of_shard("s", ["a", "b"])
    assert there.all()
    assert np.isnan(features[1]).all()
    assert features[0].tolist() == [1, 1, 1]


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    source = FileFeatures(str(write(tmp_path / "a.parquet", ["a"], [[1.0]])))
    before = given_digest(source)
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert given_digest(source) == before
    write(tmp_path / "a.parquet", ["a"], [[2.0]])
    assert given_digest(source) != before


@given(st.lists(st.text("ab\0", max_size=3), unique=True), st.lists(st.text("ab\0", max_size=3)), st.integers(1, 4))
def test_names_are_found_as_by_a_dictionary(names: list[str], wanted: list[str], num_hashes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:  # few hashes, so that many names share one
        patch.setattr(xxhash, "xxh3_64_intdigest", lambda data: len(data) % num_hashes)
        found = Names([pa.table({"key": pa.array(names, pa.string())})], "f").find("s", wanted)
    assert found.tolist() == [{name: row for row, name in enumerate(names)}.get(name, -1) for name in wanted]
