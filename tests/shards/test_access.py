"""Reading by offset gives the member's bytes, and never those of another shard than the catalog saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from rayclean.errors import ShardChangedError
from rayclean.schema import Array
from rayclean.shards import access
from rayclean.shards.access import PixelReader
from rayclean.shards.opening import open_shard
from rayclean.shards.tar import Member, scan_members
from rayclean.shards.urls import identify_shard
from rayclean.storage.draws import pixel_digest
from tests.helpers import random_pixels, sample, samples, tar_bytes


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


def all_of(shards: list[str]) -> tuple[Array, Array, Array, Array, Array]:
    """Every image: shard, offset, size, digest of its pixels, and the pixels."""
    where = [(shard, i, member) for shard, url in enumerate(shards) for i, member in enumerate(images(url))]
    pixels = [random_pixels(i) for _, i, _ in where]
    digests = np.frombuffer(b"".join(map(pixel_digest, pixels)), "<u8").reshape(-1, 2)
    columns = ([shard for shard, _, _ in where], [m.offset for *_, m in where], [m.size for *_, m in where])
    return *map(np.array, columns), digests, np.stack(pixels)  # type: ignore[return-value]


def test_the_pixels_of_every_image_in_any_order(shards: list[str]) -> None:
    reader = PixelReader(shards, 8, 1e6, [identify_shard(url) for url in shards])
    shard, offset, size, digest, pixels = all_of(shards)
    for order in (np.arange(len(shard))[::-1], np.array([2, 0, 2, 5, 1])):
        found = dict(reader.read(shard[order], offset[order], size[order], digest[order]))
        assert sorted(found) == list(range(len(order)))
        for place, image in found.items():
            np.testing.assert_array_equal(image, pixels[order[place]])
    assert reader.decoded == len(shard) + 5
    small = PixelReader(shards, 4, 1e6).read(shard[:1], offset[:1], size[:1], digest[:1])
    assert next(small)[1].shape == (4, 4, 3)


def test_threads_give_the_same_in_the_same_order(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shard, offset, size, digest, _ = all_of(shards)
    one = list(PixelReader(shards, 5, 1e6).read(shard, offset, size, digest))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(access, "DECODED_AT_ONCE", 4)
    three = list(PixelReader(shards, 5, 1e6).read(shard, offset, size, digest))
    assert [i for i, _ in three] == [i for i, _ in one]
    for (_, image), (_, expected) in zip(three, one, strict=True):
        np.testing.assert_array_equal(image, expected)
    with pytest.raises(ShardChangedError, match="another image"):
        list(PixelReader(shards, 8, 1e6).read(shard, offset, size, digest + np.uint64(1)))


def test_neighbours_in_a_shard_come_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://access/0.tar", tar_bytes(samples(range(40))))
    shard, offset, size, digest, _ = all_of(["memory://access/0.tar"])
    reader = PixelReader(["memory://access/0.tar"], 8, 1e6)
    assert len(list(reader.read(shard, offset, size, digest))) == 40
    assert reader.requests == 1
    assert reader.fetched_bytes == offset[-1] + size[-1] - offset[0]
    monkeypatch.setattr(access, "MAX_GAP_BYTES", 0)
    monkeypatch.setattr(access, "HELD_BYTES", int(size[:10].sum()))
    assert len(list(reader.read(shard, offset, size, digest))) == 40
    assert reader.requests == 1 + 40
    fsspec.filesystem("memory").rm("/access", recursive=True)


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
    shard, offset, size, digest, _ = all_of(shards)
    put(shards[1], tar_bytes([member for i in range(4) for member in sample(f"k{i}", i, seed=50 + i)]))
    reader = PixelReader(shards, 8, 1e6, recorded)
    assert len(list(reader.read(*(column[shard == 0] for column in (shard, offset, size, digest))))) == 1
    with pytest.raises(ShardChangedError) as caught:
        list(reader.read(*(column[shard == 1] for column in (shard, offset, size, digest))))
    found = identify_shard(shards[1])
    for part in (shards[1], str(recorded[1].size), recorded[1].tag, str(found.size), found.tag, "run again"):
        assert part in str(caught.value)


def test_other_pixels_are_found_where_size_and_tag_are_the_same(shards: list[str]) -> None:
    shard, offset, size, digest, _ = all_of(shards)
    digest = digest + np.uint64(1)
    for reader in (PixelReader(shards, 8, 1e6), PixelReader(shards, 8, 1e6, [identify_shard(url) for url in shards])):
        with pytest.raises(ShardChangedError, match="another image at byte"):
            list(reader.read(shard, offset, size, digest))
    with pytest.raises(ShardChangedError, match="undecodable"):
        list(PixelReader(shards, 8, 1e6).read(shard, offset + 1, size, digest))


def test_a_vanished_shard(shards: list[str]) -> None:
    shard, offset, size, digest, _ = all_of(shards)
    reader = PixelReader(shards, 8, 1e6, [identify_shard(url) for url in shards])
    fs, path = fsspec.core.url_to_fs(shards[2])
    fs.rm(path)
    with pytest.raises(ShardChangedError, match=r"2\.tar.*no such file"):
        list(reader.read(shard, offset, size, digest))


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
