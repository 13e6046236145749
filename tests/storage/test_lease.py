"""One driver a run: a living holder is never pushed aside, a dead one blocks nobody, a late one writes nothing."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from rayclean.errors import RunHeldError
from rayclean.storage import lease
from rayclean.storage.lease import (
    EARLIER_FILE,
    LEASES,
    RELEASED,
    HeldStore,
    Holder,
    current,
    hold,
    lease_file,
)
from rayclean.storage.store import Store

ELSEWHERE = Holder("another-host", 4242, 0.0, "another machine", "token-elsewhere")
BEAT = "lease/000001.beat"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, holder: Holder, number: int = 1) -> None:
    store.publish(lease_file(number), json.dumps(asdict(holder)).encode())


def here(pid: int, started: float) -> Holder:
    return replace(Holder.here(), pid=pid, started=started)


def test_a_run_is_held_for_the_block_and_no_longer(store: Store) -> None:
    for number in (1, 2, 3):
        with hold(store) as held:
            assert held.number == number
            found = current(store)
            assert found is not None
            assert (found[0].pid, found[0].host) == (os.getpid(), socket.gethostname())
            assert abs(found[1] - time.time()) < 60
        assert current(store) is None
        assert store.list(LEASES) == [f"{number:06d}.beat", f"{number:06d}.json"]  # numbers never come twice
    with pytest.raises(KeyError), hold(store):
        raise KeyError
    assert current(store) is None


def test_a_second_driver_is_refused_while_the_first_lives(store: Store) -> None:
    with hold(store) as held:
        started_s = time.monotonic()
        with pytest.raises(RunHeldError, match=rf"process {os.getpid()}.*{socket.gethostname()}"), hold(store):
            pass
        assert time.monotonic() - started_s < 5  # it looks at the process, and does not wait for a heartbeat
        held.check_held()


def test_a_dead_process_of_this_machine_is_taken_over_at_once(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(child.pid).create_time()
    child.wait()
    put(store, here(child.pid, started))
    started_s = time.monotonic()
    with hold(store):
        assert time.monotonic() - started_s < 5


def test_a_process_that_got_a_dead_ones_number_is_not_the_holder(store: Store) -> None:
    put(store, here(os.getpid(), 1.0))
    with hold(store) as held:
        assert held.number == 2


@pytest.mark.parametrize("machine", ["another boot pid:[1]", "the same host, another pid namespace"])
def test_where_the_process_cannot_be_seen_the_heartbeat_alone_counts(machine: str, store: Store) -> None:
    # The same host name says nothing, and a pid of another namespace is another process.
    put(store, replace(Holder.here(), machine=machine, started=1.0))
    started_s = time.monotonic()
    with hold(store, takeover_s=0.5) as held:
        assert time.monotonic() - started_s >= 0.5
        assert held.number == 2


@contextmanager
def beating(store: Store) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        beats = 0
        while not stop.wait(0.05):
            beats += 1
            store.publish(BEAT, str(beats).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("written", [b"", b'{"host": "h', None], ids=["empty", "half", "whole"])
def test_a_heartbeat_that_moves_is_not_pushed_aside(written: bytes | None, store: Store) -> None:
    put(store, ELSEWHERE)
    if written is not None:
        store.publish(lease_file(1), written)
    with beating(store), pytest.raises(RunHeldError, match="is held by"), hold(store, takeover_s=5):
        pass
    with hold(store, takeover_s=0.3) as held:  # a lease that cannot be read blocks nobody for ever
        assert held.number == 2


def test_a_holder_that_leaves_while_another_waits(store: Store) -> None:
    put(store, ELSEWHERE)
    threading.Timer(0.2, lambda: store.publish(BEAT, RELEASED)).start()
    started_s = time.monotonic()
    with hold(store, takeover_s=20):
        assert time.monotonic() - started_s < 10


def test_the_heart_beats(store: Store) -> None:
    with hold(store, heartbeat_s=0.02):
        deadline = time.monotonic() + 10
        while not store.exists(BEAT) or int(store.read(BEAT)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_driver_that_was_taken_over_writes_nothing_more(store: Store) -> None:
    with hold(store, heartbeat_s=0.02) as held:
        held.publish("config.yaml", b"mine")
        put(store, ELSEWHERE, 2)
        for act in (
            lambda: held.publish("config.yaml", b"late"),
            lambda: held.create("precision.json", b"late"),
            lambda: held.remove("config.yaml"),
            lambda: held.move("config.yaml", "config.yaml.damaged"),
        ):
            with pytest.raises(RunHeldError, match="took this run over"):
                act()
        time.sleep(0.1)
    assert (store.read("config.yaml"), store.exists("precision.json")) == (b"mine", False)
    assert not store.exists("lease/000002.beat")  # nor is the other one's lease released
    found = current(store)
    assert found is not None
    assert found[0] == ELSEWHERE


def test_workers_publish_units_without_the_lease(store: Store) -> None:
    with hold(store) as held:
        put(store, ELSEWHERE, 2)
        worker = pickle.loads(pickle.dumps(held))
        assert type(held) is HeldStore
        assert type(worker) is Store
        worker.publish("embed-00/000000.safetensors", b"a late unit is as good as any")


def test_a_store_that_fails_for_a_moment_ends_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(store, heartbeat_s=0.02):
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_numbers", lambda _: (_ for _ in ()).throw(OSError("away")))
            time.sleep(0.1)
        before = store.read(BEAT) if store.exists(BEAT) else b""
        deadline = time.monotonic() + 10
        while not store.exists(BEAT) or store.read(BEAT) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_driver_of_an_earlier_release_is_waited_for(store: Store) -> None:
    store.publish(EARLIER_FILE, b'{"beat": 1}')
    threading.Timer(0.2, lambda: store.publish(EARLIER_FILE, b'{"beat": 2}')).start()
    with pytest.raises(RunHeldError, match="earlier release"), hold(store, takeover_s=5):
        pass
    with hold(store, takeover_s=0.3):
        assert not store.exists(EARLIER_FILE)


@pytest.mark.parametrize("dead", [False, True], ids=["free", "held-by-a-dead-one"])
def test_of_many_drivers_that_start_together_one_holds(dead: bool, store: Store) -> None:
    drivers = 6
    if dead:
        put(store, here(os.getpid(), 1.0))
    inside, most, refused = 0, 0, 0
    guard, start = threading.Lock(), threading.Barrier(drivers)

    def drive() -> None:
        nonlocal inside, most, refused
        start.wait()
        try:
            with hold(store):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.3)
                with guard:
                    inside -= 1
        except RunHeldError:
            with guard:
                refused += 1

    threads = [threading.Thread(target=drive) for _ in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, refused) == (1, drivers - 1)


def test_two_that_find_the_same_holder_dead_do_not_both_hold(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, here(os.getpid(), 1.0))
    both_decided = threading.Barrier(2)
    inside: list[int] = []
    create = Store.create

    def creates_together(self: Store, name: str, data: bytes) -> bool:
        if not both_decided.broken and name == lease_file(2):
            both_decided.wait(timeout=5)
        return create(self, name, data)

    def drive() -> None:
        try:
            with hold(store) as held:
                inside.append(held.number)
                time.sleep(0.5)
        except RunHeldError:
            pass

    monkeypatch.setattr(Store, "create", creates_together)
    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [2]


def test_a_store_without_hard_links_can_be_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    store.check()
    with hold(store), pytest.raises(RunHeldError), hold(store):
        pass
