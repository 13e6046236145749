"""Many clients at once, and clients that want nothing: all are answered, and neither threads nor memory grow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rayclean.review import server as module
from rayclean.review.connections import MAX_HEAD_BYTES
from rayclean.review.server import ReviewServer
from tests.review.runs import read_log
from tests.review.serving import WAIT_S, answer, connected, get, post, served

CLIENTS, POSTS, IDLE = 40, 10, 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    with served(tmp_path) as server:
        yield server


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_no_decision_of_forty_clients_is_lost(server: ReviewServer, tmp_path: Path) -> None:
    together = threading.Barrier(CLIENTS)

    def decide(client: int) -> list[bytes]:
        found = []
        for each in range(POSTS):
            if each == 0:
                together.wait()
            with connected(server) as connection:
                connection.sendall(post(server, f"client{client}", each % 5))
                found.append(answer(connection)[:15])
        return found

    with ThreadPoolExecutor(CLIENTS) as clients:
        found = [status for each in clients.map(decide, range(CLIENTS)) for status in each]
    assert found == [b"HTTP/1.1 200 OK"] * CLIENTS * POSTS
    assert all(len(read_log(tmp_path, f"client{client}")) == 5 for client in range(CLIENTS))


def test_connections_that_ask_nothing_take_no_room(server: ReviewServer) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(connected(server))
        ours.sendall(get(server))
        assert ours.recv(15) == b"HTTP/1.1 200 OK"
        for _ in range(IDLE):
            stack.enter_context(connected(server)).sendall(b"GET / HT")
        with connected(server) as late:
            late.sendall(get(server, close=True))
            assert answer(late).startswith(b"HTTP/1.1 200 OK")
        assert threading.active_count() - before <= 100
        ours.sendall(get(server, close=True))
        assert b"HTTP/1.1 200 OK" in answer(ours), "it has shown the token: others have to go first"
    wait_for(lambda: threading.active_count() <= before)


def test_a_connection_without_a_word_ends(server: ReviewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.1)
    before = threading.active_count()
    for sent in (b"", b"GET ", get(server, "")):
        with connected(server) as connection:
            connection.sendall(sent)
            answer(connection)  # until the server closes
    wait_for(lambda: threading.active_count() <= before)


def test_a_body_that_does_not_come_is_an_answer(server: ReviewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.1)
    with connected(server) as connection:
        connection.sendall(post(server, "anna", 0)[:-9])
        assert answer(connection).startswith(b"HTTP/1.1 408")


def test_a_head_without_an_end_is_not_kept(server: ReviewServer) -> None:
    line = b"X: " + b"a" * 60_000 + b"\r\n"
    with connected(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\n" + line * (2 + MAX_HEAD_BYTES // len(line)))
        assert answer(connection)[:12] in (b"", b"HTTP/1.1 431")
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + line + line + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 403"), "so much is read"
