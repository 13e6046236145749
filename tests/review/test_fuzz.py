"""Whatever is sent, the server answers without an error of its own and goes on."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayclean.review.door import HOST
from rayclean.review.server import ReviewServer
from tests.review.serving import answer, connected, cookie, get, served

NUMBERS = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**67, 10**4000, 1e308, float("nan")])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9), lambda some: st.lists(some, max_size=3), max_leaves=4
)
RIGHT = {"reviewer": "anna", "row": 0, "given": "ant", "decision": "keep", "label": None}
ODD = JSON | NUMBERS | st.sampled_from(["../x", "a" * 99, "\ud800", "relabel", "undo", "cat", "dog", [], {}])
ODD_FIELDS = st.dictionaries(st.sampled_from([*RIGHT]), ODD, max_size=2) | st.fixed_dictionaries({"row": NUMBERS})
DECISIONS = ODD_FIELDS.map(lambda odd: json.dumps(RIGHT | odd).encode())
NESTED = st.integers(1, 60_000).map(lambda depth: b"[" * depth)
OTHER_BODIES = JSON.map(lambda value: json.dumps(value).encode()) | NESTED | st.binary(max_size=50)
LONG = st.sampled_from(["1" * 4301, "a" * 70_000, "%", "%ff", "[", "]:", "é", "\x00", "-0", "1e9", "+1"])
# As header values and targets can be sent: one line.
WORDS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20) | LONG
PATHS = st.sampled_from(["", "api/queue", "api/item", "picture", "review.js", "../server.py", "//"])
POST_PATHS = st.sampled_from(["api/decide"] * 4 + ["api/undo", ""])
SELDOM = st.integers(0, 5).map(lambda n: n == 5)  # an integer shrinks to 0
QUERIES = st.dictionaries(
    st.sampled_from(["reviewer", "row", "view", "side", "token"]),
    st.sampled_from(["anna", "0", "1", "999999999999999", "open", "mine", "others", "disputed"]) | WORDS,
    max_size=3,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewServer]:
    with served(tmp_path_factory.mktemp("fuzz")) as server:
        yield server


def sent(server: ReviewServer, data: bytes) -> bytes:
    """What comes back for bytes after which nothing more comes."""
    with connected(server) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before all was sent
        return answer(connection)


def check(server: ReviewServer, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    for status in [line for line in sent(server, data).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]:
        # 501 and 505: a method and a version that there are not.
        assert status[9:12] < b"500" or status[9:12] in (b"501", b"505"), (status, data[:300])
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@given(data=st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_requests_of_all_kinds(server: ReviewServer, caplog: pytest.LogCaptureFixture, data: st.DataObject) -> None:
    """Mostly right, so that they come far: each part of a request of a page may be replaced."""
    draw = data.draw
    host = f"{HOST}:{server.port}"
    is_post = draw(st.booleans())
    body = draw(OTHER_BODIES if draw(SELDOM) else DECISIONS) if is_post else b""
    query = "&".join(f"{name}={value}" for name, value in draw(QUERIES).items())
    target = server.door.path + draw(POST_PATHS if is_post else PATHS) + (f"?{query}" if query else "")
    lines = {
        "Host": host,
        "Cookie": cookie(server),
        "Origin": f"http://{host}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    names = st.sampled_from([*lines, "Expect", "Connection", "X"])
    changed = draw(st.dictionaries(names, WORDS | st.none(), max_size=2)) if draw(SELDOM) else {}
    method = "POST" if is_post else "GET"
    if draw(SELDOM):
        method, target = draw(st.sampled_from(["PUT", "HEAD", "", "get", method])), draw(WORDS | st.just("http://[/"))
    versions = ["HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1111111111111"]
    version = draw(st.sampled_from(versions)) if draw(SELDOM) else "HTTP/1.1"
    head = [f"{method} {target} {version}"]
    head += [f"{name}: {value}" for name, value in {**lines, **changed}.items() if value is not None]
    check(server, "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body, caplog)


@given(data=st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_all_kinds(server: ReviewServer, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    check(server, data, caplog)
    check(server, data + b"\r\n\r\n", caplog)


def test_what_was_an_error_once(server: ReviewServer, caplog: pytest.LogCaptureFixture) -> None:
    host = f"Host: {HOST}:{server.port}\r\nCookie: {cookie(server)}\r\n".encode()
    assert sent(server, b"GET http://[/ HTTP/1.1\r\n" + host + b"\r\n").startswith(b"HTTP/1.1 400")
    long = host + f"Origin: http://{HOST}:{server.port}\r\nContent-Type: application/json\r\n".encode()
    post = f"POST {server.door.path}api/undo HTTP/1.1\r\n".encode() + long + b"Content-Length: " + b"1" * 5000
    assert sent(server, post + b"\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert not caplog.records


def test_after_all_that_it_answers(server: ReviewServer) -> None:
    assert sent(server, get(server, close=True)).startswith(b"HTTP/1.1 200 OK")
