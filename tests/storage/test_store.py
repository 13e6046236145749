"""Files are there whole or not at all, on a local disk and on an object store alike."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import ConfigError
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.store import TEMPORARY, Store


@pytest.fixture(params=["local", "memory", "process"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield Store(str(tmp_path / "run"))
        return
    if request.param == "process":
        yield MemoryStore()
        return
    root = f"memory://store-{uuid.uuid4().hex}"
    yield Store(root)
    Store(root).remove("")


def all_files(root: Path) -> list[str]:
    """Every file below a folder, temporary ones too."""
    return sorted(os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root) for name in names)


def test_what_is_published_is_there(store: Store) -> None:
    assert not store.exists("a/b.json")
    store.publish("a/b.json", b"one")
    assert store.exists("a/b.json")
    assert store.exists("a")
    assert store.read("a/b.json") == bytes(store.map("a/b.json")) == b"one"
    store.publish("a/b.json", memoryview(b"another"))
    assert store.read("a/b.json") == b"another"


def test_listing_is_sorted_and_knows_no_folder_that_is_not_there(store: Store) -> None:
    for name in ("f/2", "f/10", "f/1", "f/sub/x", "g/1"):
        store.publish(name, b"-")
    assert store.list("f") == ["1", "10", "2", "sub"]
    assert store.list("") == ["f", "g"]
    assert store.list("nothing/here") == []


def test_create_keeps_what_is_there(store: Store) -> None:
    assert store.create("f/lease", b"first")
    assert not store.create("f/lease", b"second")
    assert store.read("f/lease") == b"first"
    assert store.list("f") == ["lease"]
    store.remove("f/lease")
    assert store.create("f/lease", b"third")


def test_removing_takes_files_and_folders_and_minds_nothing_missing(store: Store) -> None:
    for name in ("f/1", "f/sub/2", "g"):
        store.publish(name, b"-")
    store.remove("f/1")
    assert store.list("f") == ["sub"]
    store.remove("f")
    assert not store.exists("f/sub/2")
    store.remove("f")
    assert store.exists("g")


def test_a_store_is_the_same_store_in_another_process(store: Store) -> None:
    store.publish("x", b"-")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.root, copy.path, copy.is_local) == (store.root, store.path, store.is_local)
    assert copy.read("x") == b"-"


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=2).map("/dir-".join)
steps = st.tuples(st.sampled_from(["publish", "create", "remove"]), names, st.binary(max_size=4))


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=12))
def test_all_kinds_of_store_answer_as_a_dict_would(tmp_path_factory: pytest.TempPathFactory, todo: list[Any]) -> None:
    local = Store(str(tmp_path_factory.mktemp("model")))
    remote = Store(f"memory://model-{uuid.uuid4().hex}")
    stores = (local, remote, MemoryStore())
    model: dict[str, bytes] = {}
    for action, name, data in todo:
        # A name that is a folder somewhere is no file elsewhere.
        name = f"top-{name.count('/')}/{name}"
        for each in stores:
            if action == "publish":
                each.publish(name, data)
            elif action == "create":
                assert each.create(name, data) == (name not in model)
            else:
                each.remove(name)
        if action == "remove":
            model.pop(name, None)
        elif action == "publish" or name not in model:
            model[name] = data
    for each in stores:
        folders = {name.rpartition("/")[0] for name in model}
        assert {f"{folder}/{name}" for folder in folders for name in each.list(folder)} == set(model)
        assert {name: each.read(name) for name in model} == model
    remote.remove("")


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_failing_write_leaves_nothing_behind(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.publish("f/old", b"whole")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, fail)
        for name in ("f/old", "f/new"):
            with pytest.raises(OSError, match="disk full"):
                store.publish(name, b"part")
    assert all_files(tmp_path) == ["f/old"]
    assert store.read("f/old") == b"whole"


def test_a_failing_create_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))

    def full(_: int) -> None:
        raise OSError("disk full")

    for with_links in (True, False):
        with monkeypatch.context() as patch:
            if not with_links:
                patch.setattr(os, "link", no_links)
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="disk full"):
                store.create("f/lease", b"part")
        assert all_files(tmp_path) == []


def no_links(*_: str) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_where_there_are_no_hard_links_one_creates_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    store = Store(str(tmp_path))
    store.check()
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda i: store.create("f/lease", str(i).encode()), range(24)))
    assert sum(created) == 1
    assert store.read("f/lease") == str(created.index(True)).encode()
    assert all_files(tmp_path) == ["f/lease"]


def test_no_reader_ever_sees_a_part_or_a_temporary_name(tmp_path: Path) -> None:
    store, stop = Store(str(tmp_path)), threading.Event()
    contents = [bytes([i]) * 200_000 for i in range(3)]

    def write(data: bytes) -> None:
        while not stop.is_set():
            store.publish("f/x", data)

    writers = [threading.Thread(target=write, args=(data,)) for data in contents]
    store.publish("f/x", contents[0])
    for writer in writers:
        writer.start()
    try:
        for _ in range(40):
            assert store.list("f") == ["x"]
            assert store.read("f/x") in contents
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert all_files(tmp_path) == ["f/x"]


def test_what_a_dead_writer_left_is_not_listed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish("f/x", b"whole")
    (tmp_path / "f" / f".y{TEMPORARY}host-1-2").write_bytes(b"part")
    assert store.list("f") == ["x"]
    assert not store.exists("f/y")


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_one_of_many_creates(kind: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path)) if kind == "local" else Store(f"memory://create-{uuid.uuid4().hex}")
    won: list[int] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        if store.create("f/lease", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if kind == "local":  # fsspec's memory looks before it writes, which no object store does
        assert len(won) == 1
    assert int(store.read("f/lease")) in won
    assert store.list("f") == ["lease"]


class ListingCache(MemoryFileSystem):  # type: ignore[misc]
    """Remembers listings as the clients of object stores do, unless told not to."""

    protocol = "listingcache"
    cachable = True

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("listingcache://", "memory://")))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True, **kwargs)
        entries = self.dircache[path] if path in self.dircache else super().ls(path, detail=True)
        return entries if detail else [entry["name"] for entry in entries]

    def exists(self, path: str, **kwargs: Any) -> bool:
        path = self._strip_protocol(path)
        parent = path.rpartition("/")[0]
        if parent in self.dircache:
            return any(entry["name"] == path for entry in self.dircache[parent])
        return bool(super().exists(path, **kwargs))


def test_what_another_process_published_is_seen_at_once() -> None:
    fsspec.register_implementation("listingcache", ListingCache, clobber=True)
    root = f"run-{uuid.uuid4().hex}"
    store = Store(f"listingcache://{root}")
    store.publish("f/1", b"-")
    assert store.list("f") == ["1"]
    MemoryFileSystem().pipe_file(f"/{root}/f/2", b"-")  # behind the back of this client
    assert store.exists("f/2")
    assert store.list("f") == ["1", "2"]
    store.remove("")


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.dir nosuch://bucket/run"):
        Store("nosuch://bucket/run")


def test_what_another_removes_first_is_gone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.publish("a", b"")
    (tmp_path / "a").unlink()
    monkeypatch.setattr(Store, "exists", lambda *_: True)  # as it was a moment ago
    store.remove("a")
