"""A node keeps one copy of a large remote file, of the version that is there now, within its bound."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rayclean.storage import mirror
from rayclean.storage.mirror import SUFFIX, copy_of
from rayclean.storage.store import Store

MIB = 2**20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mirror, "node_folder", lambda _: tmp_path)
    return tmp_path


def copies(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))


def test_a_large_file_is_fetched_once_and_mapped(folder: Path) -> None:
    store, data = Store(f"memory://mirror-{folder.name}"), bytes(range(256)) * (5 * MIB // 256)
    store.publish("a-00/big", data)
    store.publish("a-00/small", b"x" * 1000)
    first = store.map("a-00/big")
    assert bytes(first) == data
    assert bytes(store.map("a-00/small")) == b"x" * 1000
    assert copies(folder) == [5 * MIB]
    again = Store(store.root).map("a-00/big")
    assert bytes(again) == data
    assert copies(folder) == [5 * MIB]
    store.publish("a-00/big", data[::-1])  # another version is another copy, and the old map stays what it was
    assert bytes(store.map("a-00/big")) == data[::-1]
    assert bytes(first) == data


def test_many_that_want_it_fetch_it_once(folder: Path) -> None:
    fetched, found = [], []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append((start, stop))
        return b"x" * (stop - start)

    threads = [threading.Thread(target=lambda: found.append(copy_of("a", 2 * MIB, fetch))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [(0, 2 * MIB)]
    assert len(set(found)) == 1


def test_what_was_used_longest_ago_makes_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "MAX_BYTES", 5 * MIB)

    def fetch(start: int, stop: int) -> bytes:
        return b"x" * (stop - start)

    one, two = copy_of("one", 2 * MIB, fetch), copy_of("two", 2 * MIB, fetch)
    assert one is not None
    assert two is not None
    assert copy_of("one", 2 * MIB, fetch) == one  # used again
    assert copy_of("three", 2 * MIB, fetch) is not None
    assert (one.exists(), two.exists()) == (True, False)
    assert copy_of("too large", 6 * MIB, fetch) is None
    assert copies(folder) == [2 * MIB, 2 * MIB]


def test_a_fetch_that_breaks_leaves_no_copy(folder: Path) -> None:
    def broken(start: int, stop: int) -> bytes:
        raise OSError(28, "No space left on device")

    assert copy_of("a", 2 * MIB, broken) is None
    assert copies(folder) == []
