"""Ctrl-C and SIGTERM: the first one ends the command in order, one that comes later at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130  # the exit code
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
    first_s: list[float] = []

    def interrupt(_: int, __: FrameType | None) -> None:
        now = time.monotonic()
        if not first_s:
            first_s.append(now)
            raise KeyboardInterrupt
        if now - first_s[0] > SAME_S:
            os._exit(INTERRUPTED)

    handle(interrupt)
