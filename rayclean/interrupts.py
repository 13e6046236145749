"""Ctrl-C and SIGTERM: the first one ends the command in order, one that comes later at once.

What a signal raises can be lost: imports of compiled modules and Ray's start catch more than they should. So places
where a command goes on ask `check` whether one has come.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130  # the exit code
_first_s: list[float] = []  # when the first signal came
SAME_S = 2.0  # signals within it are one: `timeout` sends its signal to the process and to its group


def leave_at_once(_: int, __: FrameType | None) -> None:
    """Ends the process while nothing has begun that would have to be ended first."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Has a handler called for both; a driver that a script starts in the background ignores SIGINT otherwise."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def raise_interrupts() -> None:
    """From now on the first signal raises KeyboardInterrupt where the main thread is, and a later one ends all."""

    def interrupt(_: int, __: FrameType | None) -> None:
        now = time.monotonic()
        if not _first_s:
            _first_s.append(now)
            raise KeyboardInterrupt
        if now - _first_s[0] > SAME_S:
            os._exit(INTERRUPTED)

    handle(interrupt)


def check() -> None:
    """Raises KeyboardInterrupt where a signal has come, and the command goes on all the same."""
    if _first_s:
        raise KeyboardInterrupt


@contextmanager
def kept() -> Iterator[None]:
    """Puts SIGTERM's handler back that Ray, or its core with a stack trace, sets in its place while it starts.

    Raises:
        KeyboardInterrupt: a signal came meanwhile, whoever has handled it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, (read, write) = signal.getsignal(signal.SIGTERM), os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler)
        with suppress(BlockingIOError):
            if {signal.SIGINT, signal.SIGTERM}.intersection(os.read(read, 512)) and not _first_s:
                _first_s.append(time.monotonic())
        os.close(read)
        os.close(write)
    check()
