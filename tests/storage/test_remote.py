"""A run's files and shards on a real object store: throttled, cut, away, refused; and 10,000 shards."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import fsspec
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from rayclean.errors import ConfigError, InputError, RunHeldError, UnitError
from rayclean.shards.opening import open_shard
from rayclean.shards.urls import expand_shards, identify_shard, identify_shards
from rayclean.storage import remote
from rayclean.storage.lease import current, hold
from rayclean.storage.remote import is_transient, patiently
from rayclean.storage.store import Store
from tools.faults.serving import ObjectStore, serving


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with serving() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore) -> Store:
    return Store(f"{server.bucket}/{uuid.uuid4().hex}")


def test_files_are_published_listed_read_and_removed(store: Store, server: ObjectStore) -> None:
    server.counts()
    store.publish("embed-00/000000.safetensors", b"x" * 1000)
    assert server.counts() == {"PUT": {"requests": 1, "received_bytes": 1000, "sent_bytes": 0}}  # a unit is one PUT
    store.publish("embed-00/000001.safetensors", b"y")
    assert store.exists("embed-00")
    assert store.exists("embed-00/000001.safetensors")
    assert not store.exists("embed-00/000002.safetensors")
    assert store.list("embed-00") == ["000000.safetensors", "000001.safetensors"]
    assert store.list("") == ["embed-00"]
    assert bytes(store.map("embed-00/000000.safetensors")) == b"x" * 1000
    assert abs(store.modified_s("embed-00/000001.safetensors") - time.time()) < 60
    store.remove("embed-00")
    assert store.list("") == []
    store.remove("embed-00")


def test_of_many_that_create_one_succeeds(store: Store) -> None:
    def create(i: int) -> bool:
        return Store(store.root).create("lease.json", str(i).encode())

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(create, range(24)))
    assert sum(created) == 1
    assert store.read("lease.json") == str(created.index(True)).encode()


def test_a_run_is_held_by_one(store: Store) -> None:
    with hold(store, heartbeat_s=0.05):
        assert current(store) is not None
        time.sleep(0.2)
        with pytest.raises(RunHeldError), hold(store):
            pass
    assert current(store) is None


@pytest.mark.parametrize("fault", ["throttle", "cut"])
def test_throttling_and_cut_connections_are_outlasted(store: Store, server: ObjectStore, fault: str) -> None:
    store.publish("a/b", b"some bytes")
    for call in (lambda: store.read("a/b"), lambda: store.list("a"), lambda: store.publish("a/c", b"-")):
        server.spoil(fault, count=2)
        call()
    server.spoil(fault, count=0)
    assert store.read("a/b") == b"some bytes"
    assert store.list("a") == ["b", "c"]


def test_a_store_that_is_away_is_waited_for(store: Store, server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    store.publish("a", b"some bytes")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    store = Store(store.root)
    server.spoil("away", seconds=1)
    started_s = time.monotonic()
    assert store.read("a") == b"some bytes"
    assert time.monotonic() - started_s > 0.9


def test_a_store_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def away() -> None:
        calls.append(1)
        raise ConnectionResetError("cut")

    monkeypatch.setattr(remote, "PATIENCE_S", 0.6)
    with pytest.raises(UnitError, match=r"has not answered.*cut.*run the same command again"):
        patiently(away)
    assert len(calls) >= 2


def test_what_will_not_change_is_not_tried_again() -> None:
    calls = []

    def refused() -> None:
        calls.append(1)
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        patiently(refused)
    assert len(calls) == 1
    assert not is_transient(ValueError("x"))
    assert is_transient(TimeoutError())


def test_a_missing_bucket_and_wrong_credentials_end_at_once(server: ObjectStore) -> None:
    import s3fs

    started_s = time.monotonic()
    with pytest.raises(ConfigError, match=r"run\.dir s3://nowhere/run: cannot be written: .*bucket does not exist"):
        Store("s3://nowhere/run").check()
    with pytest.raises(InputError, match="s3://nowhere"):
        expand_shards("s3://nowhere/*.tar")
    with pytest.raises(InputError, match="s3://nowhere/a"):
        identify_shard("s3://nowhere/a.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "stranger")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ConfigError, match=r"cannot be written: .*(Access Key|Forbidden|denied)") as caught:
            Store(f"{server.bucket}/run").check()
        with pytest.raises(InputError, match="check the path and the access rights"):
            expand_shards(f"{server.bucket}/*.tar")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "never-to-be-seen" not in str(caught.value)
    assert time.monotonic() - started_s < 20


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("rayclean.storage.store.START_PATIENCE_S", 0.6)
    with pytest.raises(ConfigError, match="Could not connect"):
        Store("s3://rayclean/run").check()
    s3fs.S3FileSystem.clear_instance_cache()


def test_thousands_of_shards_are_listed_in_a_few_requests(server: ObjectStore) -> None:
    name = uuid.uuid4().hex
    folder = f"{server.bucket}/{name}"
    server.fill(name, 3000)
    for pattern in (f"{folder}/*.tar", f"{folder}/{{00000..02999}}.tar"):
        server.counts()
        urls = expand_shards(pattern)
        identities = identify_shards(urls)
        assert server.counts()["GET"]["requests"] <= 9  # a thousand a request, twice
        assert [identity.size for identity in identities] == [len(str(i)) for i in range(3000)]
        assert len({identity.tag for identity in identities}) == 3000
    assert identities[7] == identify_shard(urls[7])


def test_a_shard_is_read_in_ranges(server: ObjectStore) -> None:
    url, data = f"{server.bucket}/{uuid.uuid4().hex}.bin", bytes(range(256)) * 50_000
    fsspec.filesystem("s3").pipe_file(url, data)
    server.counts()
    with open_shard(url) as file:
        server.spoil("cut", count=1)
        assert file.read() == data
        file.seek(-10, 2)
        assert file.read() == data[-10:]
        file.seek(100)
        assert file.read(20) == data[100:120]
    assert server.counts()["GET"]["requests"] <= 6
    with pytest.raises(InputError, match="cannot be read"):
        open_shard(f"{server.bucket}/nothing.tar")


@pytest.mark.parametrize(("status", "expected"), [(403, False), (404, False), (429, True), (503, True)])
def test_what_a_web_server_answers_tells_whether_a_retry_helps(status: int, expected: bool) -> None:
    url = URL("http://host/a.tar")
    asked = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    assert is_transient(aiohttp.ClientResponseError(asked, (), status=status)) == expected
    assert is_transient(aiohttp.ServerDisconnectedError())
