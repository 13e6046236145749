"""Reading by offset gives the member's bytes, and never those of another shard than the catalog saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from rayclean.errors import ShardChangedError
from rayclean.shards import access
from rayclean.shards.access import PixelReader
from rayclean.shards.tar import Member, scan_members
from rayclean.shards.urls import identify_shard, open_shard
from tests.helpers import random_pixels, samples, tar_bytes


@pytest.fixture(params=["local", "memory"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    root = str(tmp_path) if request.param == "local" else "memory://access"
    urls = [f"{root}/{i}.tar" for i in range(3)]
    for i, url in enumerate(urls):
        put(url, tar_bytes(samples(range(i + 1))))
    yield urls
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/access", recursive=True)


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def images(url: str) -> list[Member]:
    with open_shard(url) as file:
        return [member for member in scan_members(file, url) if member.extension == "png"]


def test_the_pixels_of_every_image_in_any_order(shards: list[str]) -> None:
    reader = PixelReader(shards, 8, 1e6, [identify_shard(url) for url in shards])
    where = [(shard, i, member) for shard, url in enumerate(shards) for i, member in enumerate(images(url))]
    for shard, i, member in reversed(where):
        np.testing.assert_array_equal(reader.read(shard, member.offset, member.size), random_pixels(i))
    assert PixelReader(shards, 4, 1e6).read(0, where[0][2].offset, where[0][2].size).shape == (4, 4, 3)


def test_only_so_many_files_stay_open(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_OPEN_FILES", 2)
    reader = PixelReader(shards, 8, 1e6)
    expected = [PixelReader(shards, 8, 1e6).read_bytes(shard, 0, 600) for shard in range(3)]
    for shard in (0, 1, 2, 0, 2, 0, 2, 1):
        assert reader.read_bytes(shard, 0, 600) == expected[shard]
        assert len(reader._files) <= 2
    assert set(reader._files) <= {1, 2}  # the last two that were used
    reader.close()
    assert reader.read_bytes(1, 0, 600) == expected[1]
    reader.close()


def test_a_changed_shard_is_named_with_what_was_expected(shards: list[str]) -> None:
    recorded = [identify_shard(url) for url in shards]
    put(shards[1], tar_bytes(samples([5, 6, 7, 8])))
    reader = PixelReader(shards, 8, 1e6, recorded)
    reader.read_bytes(0, 0, 10)
    with pytest.raises(ShardChangedError) as caught:
        reader.read_bytes(1, 0, 10)
    found = identify_shard(shards[1])
    for part in (shards[1], str(recorded[1].size), recorded[1].tag, str(found.size), found.tag, "run again"):
        assert part in str(caught.value)


def test_a_vanished_shard(shards: list[str]) -> None:
    reader = PixelReader(shards, 8, 1e6, [identify_shard(url) for url in shards])
    fs, path = fsspec.core.url_to_fs(shards[2])
    fs.rm(path)
    with pytest.raises(ShardChangedError, match="no such file"):
        reader.read_bytes(2, 0, 10)


def test_the_same_content_written_again_is_a_change(tmp_path: Path) -> None:
    url = str(tmp_path / "a.tar")
    put(url, tar_bytes(samples([0])))
    recorded = identify_shard(url)
    os.utime(url, ns=(1, 1))
    with pytest.raises(ShardChangedError):
        PixelReader([url], 8, 1e6, [recorded]).read_bytes(0, 0, 10)


def test_a_read_past_the_end(shards: list[str]) -> None:
    size = identify_shard(shards[0]).size
    with pytest.raises(ShardChangedError, match="found 4"):
        PixelReader(shards, 8, 1e6).read_bytes(0, size - 4, 10)
