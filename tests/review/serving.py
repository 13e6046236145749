"""A review server in a thread, on a table made by hand, and raw bytes sent to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from rayclean.errors import ShardChangedError
from rayclean.review.door import HOST
from rayclean.review.server import ReviewServer
from rayclean.review.state import Review
from tests.review.tables import queue

TITLE = "<script>alert(1)</script>"
WAIT_S = 20


def picture(row: int, side: int) -> bytes:
    if row == 4:
        raise ShardChangedError("a.tar is another one")
    return f"{row} {side}".encode()


@contextlib.contextmanager
def served(run: Path) -> Iterator[ReviewServer]:
    """Rows 0 to 4."""
    review = Review(run, lambda known: None if known else queue([0.1, 0.2, 0.3, 0.8, 0.9]))
    with ReviewServer(0, review, picture, TITLE, None, "rayclean run '<b>'") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
    review.close()


def connected(server: ReviewServer) -> socket.socket:
    return socket.create_connection((HOST, server.port), timeout=WAIT_S)


def cookie(server: ReviewServer) -> str:
    return server.door.cookie.partition(";")[0]


def get(server: ReviewServer, path: str = "api/queue?reviewer=anna", *, close: bool = False) -> bytes:
    """A request that is answered."""
    ends = "Connection: close\r\n" if close else ""
    lines = (
        f"GET {server.door.path}{path} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nCookie: {cookie(server)}\r\n{ends}\r\n"
    )
    return lines.encode()


def post(server: ReviewServer, reviewer: str, row: int) -> bytes:
    """A decision."""
    facts = {
        "reviewer": reviewer,
        "row": row,
        "given": ("ant", "bee", "cat")[row % 3],
        "decision": "keep",
        "label": None,
    }
    body, host = json.dumps(facts).encode(), f"{HOST}:{server.port}"
    head = (
        f"POST {server.door.path}api/decide HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n"
        f"Cookie: {cookie(server)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes; empty where it resets."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            found += data
    return found
