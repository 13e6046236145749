"""A server whose connections are bounded: a thread for each, and where all are taken, one that waits has to go."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_CONNECTIONS = 64  # a browser opens six
MAX_HEAD_BYTES = 2**17
IDLE_S = 60  # that a connection may keep its thread without a word


@dataclass
class _Connection:
    """What is known of a connection.

    Attributes:
        since_s: it waits for a request.
        is_known: it has shown the token.
        at_work: a request is being answered; until that is known to be one of ours, the connection waits.
    """

    since_s: float
    is_known: bool = False
    at_work: bool = False


class BoundedServer(ThreadingHTTPServer):
    """Answers `MAX_CONNECTIONS` at a time.

    Where one more comes, the connection that has waited for longest is closed, of those without the token first. So
    clients that only open connections neither keep others out nor grow the memory.
    """

    daemon_threads = True
    request_queue_size = 128  # of the system; five would refuse some of 40 clients at once

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: dict[Any, _Connection] = {}
        self._changed = threading.Condition()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread as soon as there is room for it."""
        with self._changed:
            while len(self._connections) >= MAX_CONNECTIONS:
                waiting = [each for each, known in self._connections.items() if not known.at_work]
                if waiting:
                    self._hang_up(min(waiting, key=self._worth))
                self._changed.wait(1)
            self._connections[request] = _Connection(time.monotonic())
        super().process_request(request, client_address)

    def _worth(self, request: Any) -> tuple[bool, float]:
        known = self._connections[request]
        return known.is_known, known.since_s

    def _hang_up(self, request: Any) -> None:
        """Ends the thread's waiting; the thread then closes the connection."""
        with suppress(OSError):  # the client was faster
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection, however it ends."""
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    @contextmanager
    def at_work(self, request: Any) -> Iterator[None]:
        """While a request with the token is answered, its connection stays."""
        with self._changed:
            known = self._connections[request]
            known.is_known = known.at_work = True
        try:
            yield
        finally:
            with self._changed:
                known.at_work, known.since_s = False, time.monotonic()
                self._changed.notify_all()


class Head(io.BufferedReader):
    """Reads from a connection; lines and headers of a request are bounded together."""

    left = MAX_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """A line.

        Raises:
            LineTooLong: too much was read since `left` was set.
        """
        line = super().readline(size)
        self.left -= len(line)
        if self.left < 0:
            raise http.client.LineTooLong("headers")
        return line
