"""One driver a run: a living holder is never pushed aside, a dead one does not block the run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from rayclean.errors import RunHeldError
from rayclean.storage import lease
from rayclean.storage.lease import LEASE_FILE, Holder, hold
from rayclean.storage.store import Store

ELSEWHERE = Holder("token-elsewhere", "another-host", 4242, 0.0, 7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, holder: Holder) -> None:
    store.publish(LEASE_FILE, json.dumps(asdict(holder)).encode())


def holder_of(store: Store) -> Holder:
    return Holder(**json.loads(store.read(LEASE_FILE)))


def test_a_run_is_held_for_the_block_and_no_longer(store: Store) -> None:
    with hold(store):
        assert holder_of(store).pid == os.getpid()
    assert not store.exists(LEASE_FILE)
    with pytest.raises(KeyError), hold(store):
        raise KeyError
    assert not store.exists(LEASE_FILE)
    with hold(store):
        pass


def test_a_second_driver_is_refused_while_the_first_lives(store: Store) -> None:
    with hold(store):
        before = holder_of(store).token
        started_s = time.monotonic()
        with pytest.raises(RunHeldError, match=rf"process {os.getpid()}.*{socket.gethostname()}"), hold(store):
            pass
        assert time.monotonic() - started_s < 5  # it looks at the process, and does not wait for a heartbeat
        assert holder_of(store).token == before


def test_a_dead_process_of_this_host_is_taken_over_at_once(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(child.pid).create_time()
    child.wait()
    put(store, replace(ELSEWHERE, host=socket.gethostname(), pid=child.pid, started=started))
    started_s = time.monotonic()
    with hold(store):
        assert time.monotonic() - started_s < 5
        assert holder_of(store).pid == os.getpid()


def test_a_process_that_got_a_dead_ones_number_is_not_the_holder(store: Store) -> None:
    put(store, replace(ELSEWHERE, host=socket.gethostname(), pid=os.getpid(), started=1.0))
    with hold(store):
        assert holder_of(store).token != ELSEWHERE.token


def test_a_silent_host_is_taken_over_only_after_the_wait(store: Store) -> None:
    put(store, ELSEWHERE)
    started_s = time.monotonic()
    with hold(store, takeover_s=0.5):
        assert time.monotonic() - started_s >= 0.5
        assert holder_of(store).pid == os.getpid()


@contextmanager
def beating(store: Store, holder: Holder) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        beats = holder.beat
        while not stop.wait(0.05):
            beats += 1
            put(store, replace(holder, beat=beats))

    thread = threading.Thread(target=beat)
    put(store, holder)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_host_whose_heartbeat_moves_is_not_pushed_aside(store: Store) -> None:
    with beating(store, ELSEWHERE), pytest.raises(RunHeldError, match="another-host"), hold(store, takeover_s=5):
        pass
    assert holder_of(store).token == ELSEWHERE.token


def test_a_holder_that_leaves_while_another_waits(store: Store) -> None:
    put(store, ELSEWHERE)
    threading.Timer(0.2, lambda: store.remove(LEASE_FILE)).start()
    started_s = time.monotonic()
    with hold(store, takeover_s=20):
        assert time.monotonic() - started_s < 10


def test_the_heart_beats(store: Store) -> None:
    with hold(store, heartbeat_s=0.02):
        deadline = time.monotonic() + 10
        while holder_of(store).beat < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holder_of(store).beat >= 3


def test_a_driver_that_was_taken_over_leaves_the_lease_to_the_new_one(store: Store) -> None:
    with hold(store, heartbeat_s=0.02):
        for _ in range(3):  # a heartbeat that has looked already comes over it, on a busy machine
            put(store, ELSEWHERE)
            time.sleep(0.2)
            if holder_of(store) == ELSEWHERE:
                break
        time.sleep(0.1)
        assert holder_of(store) == ELSEWHERE  # no further heartbeat over it
    assert holder_of(store) == ELSEWHERE


def test_a_store_that_fails_for_a_moment_ends_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(store, heartbeat_s=0.02):
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_read", lambda _: (_ for _ in ()).throw(OSError("away")))
            time.sleep(0.1)
        before = holder_of(store).beat
        deadline = time.monotonic() + 10
        while holder_of(store).beat == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holder_of(store).beat > before


@pytest.mark.parametrize("dead", [False, True], ids=["free", "held-by-a-dead-one"])
def test_of_many_drivers_that_start_together_one_holds(dead: bool, store: Store) -> None:
    drivers = 6
    if dead:
        put(store, replace(ELSEWHERE, host=socket.gethostname(), pid=os.getpid(), started=1.0))
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
    put(store, replace(ELSEWHERE, host=socket.gethostname(), pid=os.getpid(), started=1.0))
    both_decided = threading.Barrier(2)
    inside: list[str] = []
    remove, slow = Store.remove, threading.Lock()

    def removes_at_bad_moments(self: Store, name: str) -> None:
        if both_decided.n_waiting < 2 and not both_decided.broken and "held" not in inside:
            with suppress(threading.BrokenBarrierError):
                both_decided.wait(timeout=1)
            if not slow.acquire(blocking=False):
                time.sleep(0.2)  # the other one has created its lease by now
        remove(self, name)

    def drive() -> None:
        with suppress(RunHeldError), hold(store):
            inside.append("held")
            time.sleep(1)

    monkeypatch.setattr(Store, "remove", removes_at_bad_moments)
    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == ["held"]
