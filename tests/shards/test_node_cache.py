"""A node's cache gives back what was put, or nothing: whoever writes at the same time, and however it ended."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.shards import node_cache
from rayclean.shards.node_cache import NodeCache, open_cache
from tests.helpers import random_pixels

ENTRY = 8 * 8 * 3 + node_cache.MARK_BYTES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_cache, "node_folder", lambda _: tmp_path)
    return tmp_path


def test_a_new_cache_has_nothing_and_then_what_was_put() -> None:
    one, other = (open_cache("a", 5, 8, 10**6) for _ in range(2))
    assert one.slots == 5
    assert [one.get(row) for row in range(5)] == [None] * 5
    one.put(0, random_pixels(0))
    one.put(4, random_pixels(4))
    for cache in (one, other):
        for row in (0, 4):
            np.testing.assert_array_equal(cache.get(row), random_pixels(row))
        assert cache.get(1) is None


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 30), max_size=60), slots=st.integers(0, 12))
def test_what_is_found_is_what_was_put(tmp_path_factory: pytest.TempPathFactory, rows: list[int], slots: int) -> None:
    cache = NodeCache(tmp_path_factory.mktemp("cache") / "x", 31, 8, slots * ENTRY)
    last: dict[int, int] = {}
    for row in rows:
        found = cache.get(row)
        expected = slots > 0 and last.get(row % slots) == row
        assert (found is not None) == expected
        if found is not None:
            np.testing.assert_array_equal(found, random_pixels(row))
        cache.put(row, random_pixels(row))
        if slots:
            last[row % slots] = row


def test_a_half_written_slot_counts_as_missing(folder: Path) -> None:
    cache = open_cache("a", 3, 8, 10**6)
    for row in range(3):
        cache.put(row, random_pixels(row))
    path = folder / "a.images"
    data = bytearray(path.read_bytes())
    data[ENTRY + 100] ^= 1
    path.write_bytes(data)
    again = open_cache("a", 3, 8, 10**6)
    assert again.get(1) is None
    np.testing.assert_array_equal(again.get(2), random_pixels(2))


def test_the_bound_is_kept_and_the_space_is_taken(folder: Path) -> None:
    cache = open_cache("a", 1000, 8, 10 * ENTRY + 1)
    facts = os.stat(folder / "a.images")
    assert cache.slots == 10
    assert facts.st_size == 10 * ENTRY <= facts.st_blocks * 512
    assert open_cache("none", 1000, 8, 0).get(3) is None


def test_caches_that_nobody_maps_make_room(folder: Path) -> None:
    used = open_cache("used", 5, 8, 10**6)
    unused = open_cache("unused", 5, 8, 10**6)
    unused.close()
    open_cache("new", 5, 8, 10**6)
    assert sorted(path.name for path in folder.glob("*.images")) == ["new.images", "used.images"]
    used.put(1, random_pixels(1))
    assert used.get(1) is not None


def test_a_node_without_room_goes_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = open_cache("a", 5, 8, 10**6)
    cache.put(1, random_pixels(1))
    assert cache.slots == 0
    assert cache.get(1) is None
