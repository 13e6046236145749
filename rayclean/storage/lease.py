"""One driver a run: a file that is created only if absent, with a heartbeat.

A second driver asks whether the holder lives. On the same host it looks at the process itself, so a killed
driver's run is taken over at once; elsewhere it waits for a heartbeat.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import psutil

from rayclean.errors import RunHeldError
from rayclean.storage.store import Store

LEASE_FILE = "lease.json"
HEARTBEAT_S = 5.0
TAKEOVER_S = 60.0
SETTLE_S = 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a run."""

    token: str
    host: str
    pid: int
    started: float
    beat: int

    def encode(self) -> bytes:
        """As the lease file has it."""
        return json.dumps(asdict(self)).encode()


def _myself() -> Holder:
    return Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), psutil.Process().create_time(), 0)


def _read(store: Store) -> Holder | None:
    try:
        return Holder(**json.loads(store.read(LEASE_FILE)))
    except FileNotFoundError:
        return None


def _is_alive_here(holder: Holder) -> bool:
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.started) < 1.0
    except psutil.Error:
        return False


def _wait_for_death(store: Store, holder: Holder, takeover_s: float) -> None:
    """Returns when the holder is dead or gone.

    Raises:
        RunHeldError: it lives.
    """
    where = f"process {holder.pid} on {holder.host}"
    held = f"{store.root} is held by {where}; wait for it to end, or stop it, and run the same command again"
    if holder.host == socket.gethostname():
        if _is_alive_here(holder):
            raise RunHeldError(held)
        log.info("taking over %s: its driver (%s) is dead", store.root, where)
        return
    log.warning("%s was held by %s; waiting up to %.0f s for a sign of life", store.root, where, takeover_s)
    deadline = time.monotonic() + takeover_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, takeover_s / 10))
        seen = _read(store)
        if seen is None:
            return
        if (seen.token, seen.beat) != (holder.token, holder.beat):
            raise RunHeldError(held)
    log.warning("no heartbeat for %.0f s: taking over %s", takeover_s, store.root)


def _keep_beating(store: Store, holder: Holder, stop: threading.Event, interval_s: float) -> None:
    while not stop.wait(interval_s):
        holder = replace(holder, beat=holder.beat + 1)
        try:
            seen = _read(store)
            if seen is not None and seen.token != holder.token:
                log.error("another driver (process %d on %s) took this run over", seen.pid, seen.host)
                return
            store.publish(LEASE_FILE, holder.encode())
        except OSError as e:
            log.warning("could not renew the lease of %s: %s", store.root, e)


def _acquire(store: Store, me: Holder, takeover_s: float) -> None:
    """Puts the lease in place, a dead holder's removed first.

    Two drivers may find the same holder dead, and the slower one remove the lease of the faster: so after a
    takeover a driver looks again, once such a rival must be through.
    """
    pause_s = 0.0
    while True:
        if store.create(LEASE_FILE, me.encode()) or _token(store) == me.token:
            time.sleep(pause_s)
            if _token(store) == me.token:
                return
        holder = _read(store)
        if holder is not None:
            _wait_for_death(store, holder, takeover_s)
            if _token(store) == holder.token:
                store.remove(LEASE_FILE)
            pause_s = SETTLE_S


def _token(store: Store) -> str | None:
    holder = _read(store)
    return holder.token if holder is not None else None


@contextmanager
def hold(store: Store, takeover_s: float = TAKEOVER_S, heartbeat_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Holds the run while the block runs.

    Raises:
        RunHeldError: another live driver holds it.
    """
    me = _myself()
    _acquire(store, me, takeover_s)
    stop = threading.Event()
    beat = threading.Thread(target=_keep_beating, args=(store, me, stop, heartbeat_s), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _token(store) == me.token:
            store.remove(LEASE_FILE)
