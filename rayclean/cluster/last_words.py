"""Why a worker process died: what it was at, and the signal that ended it, lie in a file of its node.

Ray knows no signal of a process that ends on its own, and Ray Data keeps the cause of a lost block to itself.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rayclean.storage.node import node_folder

KEPT_S = 86400.0  # how long the words of the dead are kept; a pool is asked for long before
YOUNG_S = 60.0  # a file of this age may not be locked yet
# What Python's fault handler writes, as it is in CPython.
SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
}
FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
# Only SIGKILL leaves nothing behind (and a library that ends its process, which none of ours does).
SILENT = "SIGKILL"


@dataclass(frozen=True)
class Death:
    """A process that died at work.

    Attributes:
        at: what it was doing.
        signal: what ended it.
    """

    at: str
    signal: str


class LastWords:
    """Notes what this process does; one per process, for as long as that lives.

    Args:
        pool: names the processes whose deaths are asked for together.
    """

    def __init__(self, pool: str) -> None:
        folder = node_folder("deaths")
        _sweep(folder)
        self._file = open(folder / f"{pool}-{os.getpid()}", "w+b", buffering=0)  # noqa: SIM115
        fcntl.flock(self._file, fcntl.LOCK_EX)  # held until the process is gone, which says that it lives
        faulthandler.enable(self._file, all_threads=False)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Notes what is done in the block, and afterwards that it ended, in whatever way."""
        self._file.seek(0)
        self._file.write(f"{what}\n".encode())
        try:
            yield
        finally:
            self._file.seek(0)
            self._file.truncate()


def deaths(pool: str) -> list[Death]:
    """The processes of a pool that died at work on this node."""
    found = []
    for path in node_folder("deaths").glob(f"{pool}-*"):
        if (text := _left(path)) is not None and (at := text.partition("\n")[0]):
            fatal = FATAL.search(text)
            found.append(Death(at, SILENT if fatal is None else SIGNALS.get(fatal[1], "SIGABRT")))
    return found


def in_words(signals: set[str]) -> str:
    """Signals, and what they mean where they come from outside; none where nothing is known."""
    if not signals:
        return "it or its node was lost"
    named = " and ".join(sorted(signals))
    return f"{named}, out of memory?" if SILENT in signals else f"{named}, a fault in native code"


def _left(path: Path) -> str | None:
    """What a process wrote; None while it lives."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return file.read()
    return None


def _sweep(folder: Path) -> None:
    """Removes the files of processes that ended idle, or long ago."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            facts = path.stat()
            if time.time() - facts.st_mtime > (KEPT_S if facts.st_size else YOUNG_S) and _left(path) is not None:
                path.unlink()
