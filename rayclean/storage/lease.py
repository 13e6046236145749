"""One driver per run: numbered files, each created only if absent; the one with the highest number holds.

Units are pure and named by what they are made of, so a driver that was taken over does no harm by them. What changes
under one name (config, records, precision, the table's manifest, removals) is written through `HeldStore`, which looks
first whether its lease is still the highest: a driver that slept through its own takeover stops at the first of these.

A second driver asks whether the holder lives. In the same boot and the same pid namespace it looks at the process
itself, so a killed driver's run is taken over at once; elsewhere, which includes a container beside this one, it waits
for a heartbeat.
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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from rayclean.errors import RunHeldError, UnitError
from rayclean.storage.store import Store

LEASES = "lease"
EARLIER_FILE = "lease.json"  # of earlier releases: content that changes with each heartbeat
HEARTBEAT_S = 5.0
TAKEOVER_S = 60.0
log = logging.getLogger(__name__)


def _machine() -> str:
    """What two processes share only where one sees the other's pid; unique where the system does not tell.

    So it is where /proc is that of another pid namespace, as in one that was made without a /proc of its own.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return uuid.uuid4().hex
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex


@dataclass(frozen=True)
class Holder:
    """Who holds a run.

    Attributes:
        machine: see `_machine`.
        started: of the process, in seconds since 1970.
    """

    host: str
    pid: int
    started: float
    machine: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        try:
            started = psutil.Process().create_time()
        except psutil.Error:  # as above; then nobody asks
            started = 0.0
        return cls(socket.gethostname(), os.getpid(), started, _machine())

    @property
    def is_near(self) -> bool:
        """Whether its process can be looked at from here."""
        return self.machine == _machine()

    @property
    def is_alive(self) -> bool:
        """Whether the process is there, of one that is near."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def lease_file(number: int) -> str:
    """Who holds."""
    return f"{LEASES}/{number:06d}.json"


def _beat_file(number: int) -> str:
    """That it lives: content that changes; `released` is the last."""
    return f"{LEASES}/{number:06d}.beat"


RELEASED = b"released"


def _numbers(store: Store) -> list[int]:
    """Numbers of all leases, ascending."""
    names = (name.partition(".") for name in store.list(LEASES))
    return sorted(int(stem) for stem, _, kind in names if kind == "json" and stem.isdigit())


def _read(store: Store, file: str) -> bytes | None:
    with suppress(FileNotFoundError):
        return store.read(file)
    return None


def _holder(store: Store, number: int) -> Holder | None:
    """Who has a lease; None where its file cannot be read, such as one that is being written."""
    try:
        return Holder(**json.loads(_read(store, lease_file(number)) or b"{}"))
    except (ValueError, TypeError):
        return None


def current(store: Store) -> tuple[Holder, float] | None:
    """Who holds the run, and when it gave its last sign of life, in seconds since 1970; None where nobody does."""
    for number in reversed(_numbers(store)):
        holder, beat = _holder(store, number), _read(store, _beat_file(number))
        if beat == RELEASED or holder is None:
            return None
        with suppress(FileNotFoundError):
            return holder, store.modified_s(lease_file(number) if beat is None else _beat_file(number))
    return None


class HeldStore(Store):
    """The run's files as its holder changes them: each change looks first whether it still holds the run.

    Workers get a plain `Store` when it is sent to them: units need no lease.
    """

    def __init__(self, root: str, number: int) -> None:
        super().__init__(root)
        self.number = number

    def check_held(self) -> None:
        """Raises where another driver has the run.

        Raises:
            RunHeldError: another one has taken it over.
        """
        numbers = _numbers(self)
        if not numbers or numbers[-1] != self.number:
            holder = _holder(self, numbers[-1]) if numbers else None
            raise RunHeldError(
                f"{self.root}: another driver ({holder or 'unknown'}) took this run over while this one gave no sign "
                "of life; nothing more is written here. Run the same command again when that one has ended"
            )

    def publish(self, name: str, data: bytes | memoryview) -> None:
        """See `Store.publish`."""
        self.check_held()
        super().publish(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store.create`."""
        self.check_held()
        return super().create(name, data)

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        self.check_held()
        super().remove(name)

    def move(self, name: str, to: str) -> None:
        """See `Store.move`."""
        self.check_held()
        super().move(name, to)


def _wait_for_death(store: Store, number: int, takeover_s: float) -> None:
    """Returns when the holder of a lease is dead or has released it.

    Raises:
        RunHeldError: it lives.
    """
    holder, beat = _holder(store, number), _read(store, _beat_file(number))
    if beat == RELEASED:
        return
    held = f"{store.root} is held by {holder}; wait for it to end, or stop it, and run the same command again"
    if holder is not None and holder.is_near:
        if holder.is_alive:
            raise RunHeldError(held)
        log.info("taking over %s: its driver (%s) is dead", store.root, holder)
        return
    who = holder or f"a driver that cannot be read ({lease_file(number)})"
    log.warning("%s was held by %s; waiting up to %.0f s for a sign of life", store.root, who, takeover_s)
    _watch(store, _beat_file(number), beat, takeover_s, held)


def _watch(store: Store, file: str, seen: bytes | None, takeover_s: float, held: str) -> None:
    """Returns when a heartbeat was released or has not changed for so long.

    Raises:
        RunHeldError: it changed; the text is `held`.
    """
    deadline = time.monotonic() + takeover_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, takeover_s / 10))
        beat = _read(store, file)
        if beat == RELEASED:
            return
        if beat is not None and beat != seen:
            raise RunHeldError(held)
    log.warning("no heartbeat for %.0f s: taking over %s", takeover_s, store.root)


def _wait_for_earlier(store: Store, takeover_s: float) -> None:
    """The lease of an earlier release, whose driver rewrites one file."""
    seen = _read(store, EARLIER_FILE)
    if seen is not None:
        log.warning("%s: %s is of an earlier release; waiting for a sign of life", store.root, EARLIER_FILE)
        held = f"{store.root} is held by a driver of an earlier release of rayclean; wait for it to end"
        _watch(store, EARLIER_FILE, seen, takeover_s, held)
        store.remove(EARLIER_FILE)


def _acquire(store: Store, takeover_s: float) -> int:
    """Creates the lease after the highest, whose holder is dead; of drivers that do so at once, one succeeds."""
    me = json.dumps(asdict(Holder.here())).encode()
    _wait_for_earlier(store, takeover_s)
    while True:
        numbers = _numbers(store)
        if numbers:
            _wait_for_death(store, numbers[-1], takeover_s)
        number = numbers[-1] + 1 if numbers else 1
        # On an object store an answer may be lost: then the file is there, and it is ours.
        if store.create(lease_file(number), me) or _read(store, lease_file(number)) == me:
            for lower in numbers:
                store.remove(lease_file(lower))
                store.remove(_beat_file(lower))
            return number


def _keep_beating(store: HeldStore, stop: threading.Event, interval_s: float) -> None:
    beat = 0
    while not stop.wait(interval_s):
        beat += 1
        try:
            store.publish(_beat_file(store.number), str(beat).encode())
        except RunHeldError as e:
            log.error("%s", e)
            return
        except (OSError, UnitError) as e:
            log.warning("could not renew the lease of %s: %s", store.root, e)


@contextmanager
def hold(store: Store, takeover_s: float = TAKEOVER_S, heartbeat_s: float = HEARTBEAT_S) -> Iterator[HeldStore]:
    """Holds the run while the block runs; gives the run's files as its holder changes them.

    Raises:
        RunHeldError: another live driver holds it; later, from the store, where another one has taken it over.
    """
    held = HeldStore(store.root, _acquire(store, takeover_s))
    stop = threading.Event()
    beat = threading.Thread(target=_keep_beating, args=(held, stop, heartbeat_s), daemon=True)
    beat.start()
    try:
        yield held
    finally:
        stop.set()
        beat.join()
        # The file of the lease stays: numbers never come twice, so that a driver that slept knows. Where this fails,
        # the next driver waits for a sign of life.
        with suppress(RunHeldError, UnitError, OSError):
            held.publish(_beat_file(held.number), RELEASED)
