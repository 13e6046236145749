"""The same samples give the same bytes, which WebDataset and we read back."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import InputError
from rayclean.shards.stream import stream_shard
from rayclean.shards.tar import split_name
from rayclean.shards.write import write_shard, write_shards
from tests.helpers import BLOCK

SAMPLES = [
    ("b", {"png": b"2", "cls": b"1"}),
    ("a/\u00fc" + "n" * 200, {"json": b"{}", "cls": bytes(3000)}),
    ("c", {"x": b""}),
]


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    write_shard(str(tmp_path / "1.tar"), SAMPLES)
    write_shard(str(tmp_path / "2.tar"), [(key, dict(reversed(list(parts.items())))) for key, parts in SAMPLES])
    data = (tmp_path / "1.tar").read_bytes()
    assert data == (tmp_path / "2.tar").read_bytes()
    assert data.endswith(bytes(2 * BLOCK))
    assert sorted(os.listdir(tmp_path)) == ["1.tar", "2.tar"]


def test_webdataset_reads_it_back(tmp_path: Path) -> None:
    write_shard(str(tmp_path / "a.tar"), SAMPLES)
    read = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    found = [(each["__key__"], {k: v for k, v in each.items() if not k.startswith("__")}) for each in read]
    assert found == SAMPLES
    assert [[k for k in each if not k.startswith("__")] for each in read] == [
        ["cls", "png"],
        ["cls", "json"],
        ["x"],
    ]


keys = st.text(max_size=8).filter(lambda key: split_name(f"{key}.x") == (key, "x") and "\0" not in key)


@settings(deadline=None)
@given(st.lists(st.tuples(keys, st.dictionaries(st.sampled_from(["cls", "png"]), st.binary(), min_size=1)), max_size=5))
def test_we_read_it_back(tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    if any(one[0] == two[0] for one, two in pairwise(samples)):
        return
    path = str(tmp_path_factory.mktemp("write") / "a.tar")
    write_shard(path, samples)
    assert [(key, members) for _, key, members in stream_shard(path, None)] == samples


def test_shards_of_so_many_samples(tmp_path: Path) -> None:
    samples = [(f"k{i}", {"cls": str(i).encode()}) for i in range(7)]
    paths = write_shards(str(tmp_path / "new"), "train", iter(samples), samples_per_shard=3)
    assert [Path(path).name for path in paths] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert [[key for _, key, _ in stream_shard(path, None)] for path in paths] == [
        ["k0", "k1", "k2"],
        ["k3", "k4", "k5"],
        ["k6"],
    ]
    assert write_shards(str(tmp_path), "none", [], 3) == []


@pytest.mark.parametrize(
    "samples",
    [
        [("a.b", {"png": b""})],
        [("a", {"PNG": b""})],
        [("a", {"x/y": b""})],
        [("__x", {"y__": b""})],
        [("a\0b", {"png": b""})],
        [("a", {"png": b""}), ("a", {"cls": b""})],
    ],
)
def test_what_would_be_read_back_as_something_else_is_refused(
    tmp_path: Path, samples: list[tuple[str, dict[str, bytes]]]
) -> None:
    with pytest.raises(InputError, match=r"read back as|twice in a row"):
        write_shard(str(tmp_path / "a.tar"), samples)
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_the_old_shard(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(str(path), SAMPLES)
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_shard(str(path), [("a.b", {"png": b""})])
    assert path.read_bytes() == before
