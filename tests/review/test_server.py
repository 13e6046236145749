"""What the server answers, and what it refuses: only pages of its own on this machine may decide."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayclean.errors import ConfigError, ShardChangedError
from rayclean.merge.naming import log_name
from rayclean.review.server import HOST, MAX_BODY_BYTES, MAX_SIDE, ReviewServer
from rayclean.review.state import Review
from tests.review.tables import queue

TITLE = "<script>alert(1)</script>"


def picture(row: int, side: int) -> bytes:
    if row == 4:
        raise ShardChangedError("a.tar is another one")
    return f"{row} {side}".encode()


class Client:
    """Requests as a page of the server sends them; each may be changed."""

    def __init__(self, server: ReviewServer) -> None:
        self.host, self.port = f"{HOST}:{server.port}", server.port

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str | None] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        of_pages = {"Host": self.host} | (
            {"Origin": f"http://{self.host}", "Content-Type": "application/json"} if method == "POST" else {}
        )
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        sent = {**of_pages, **({"Content-Length": str(len(body))} if body is not None else {}), **(headers or {})}
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    def get(self, path: str) -> Any:
        status, body, _ = self.send("GET", path)
        return json.loads(body) if status == 200 else status

    def post(self, path: str, **fields: Any) -> tuple[int, Any]:
        status, body, _ = self.send("POST", path, json.dumps(fields).encode())
        return status, json.loads(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    review = Review(tmp_path, lambda known: None if known else queue([0.1, 0.2, 0.3, 0.8, 0.9]))
    with ReviewServer(0, review, picture, TITLE, None, "rayclean run '<b>'") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    review.close()


@pytest.fixture
def client(server: ReviewServer) -> Client:
    return Client(server)


def log_bytes(run: Path, reviewer: str = "anna") -> bytes:
    path = run / log_name(reviewer)
    return path.read_bytes() if path.exists() else b""


def test_only_loopback_listens(server: ReviewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_decision_is_in_the_log_when_the_answer_comes(client: Client, tmp_path: Path) -> None:
    assert client.get("/api/queue?reviewer=anna&view=open")["rows"] == [0, 1, 2, 3, 4]
    status, answer = client.post("/api/decide", reviewer="anna", row=1, decision="relabel", label=2)
    assert (status, answer["progress"]["done"]) == (200, 1)
    assert json.loads(log_bytes(tmp_path).splitlines()[1])["label"] == "cat"
    assert client.get("/api/item?reviewer=anna&row=1")["mine"]["label"] == {"label": 2, "name": "cat"}
    status, answer = client.post("/api/undo", reviewer="anna")
    assert (status, answer["row"], answer["progress"]["done"]) == (200, 1, 0)
    assert log_bytes(tmp_path).count(b"\n") == 3


def test_a_decision_that_cannot_be_written_is_no_decision(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/api/decide", reviewer="anna", row=0, decision="keep", label=None)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        status, answer = client.post("/api/decide", reviewer="anna", row=1, decision="keep", label=None)
    assert (status, "No space left" in answer["error"]) == (500, True)
    assert client.get("/api/queue?reviewer=anna")["progress"]["done"] == 1
    assert log_bytes(tmp_path).count(b"\n") == 2


DECISION = json.dumps({"reviewer": "anna", "row": 0, "decision": "drop", "label": None}).encode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": None}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": None}, 415),
        ({"Content-Length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"Content-Length": "-1"}, 413),
        ({"Content-Length": None}, 413),
    ],
)
def test_what_is_not_from_a_page_of_ours_is_refused(
    headers: dict[str, str | None], status: int, client: Client, tmp_path: Path
) -> None:
    assert client.send("POST", "/api/decide", DECISION, headers)[0] == status
    assert log_bytes(tmp_path) == b""
    assert client.send("POST", "/api/decide", DECISION)[0] == 200


def test_localhost_is_this_host_too(client: Client) -> None:
    host = f"localhost:{client.port}"
    assert client.send("POST", "/api/decide", DECISION, {"Host": host, "Origin": f"http://{host}"})[0] == 200
    assert client.send("POST", "/api/decide", DECISION, {"Host": host})[0] == 403, "an origin of another name"


@pytest.mark.parametrize("path", ["/", "/picture?row=0&side=9", "/api/queue?reviewer=anna"])
def test_a_name_that_is_pointed_at_this_host_reads_nothing(path: str, client: Client) -> None:
    assert client.send("GET", path, headers={"Host": f"evil.example:{client.port}"})[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"reviewer": "anna"}',
        b'{"reviewer": "anna", "row": "0", "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": true, "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": 0, "decision": "remove", "label": null}',
        b'{"reviewer": "anna", "row": 0, "decision": ["keep"], "label": null}',
        b'{"reviewer": "anna", "row": 0, "decision": "undo", "label": null}',
        b'{"reviewer": "anna", "row": 99, "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": 0, "decision": "relabel", "label": 1.5}',
        b'{"reviewer": "anna", "row": 0, "decision": "relabel", "label": 3}',
        b'{"reviewer": "../anna", "row": 0, "decision": "keep", "label": null}',
        b'{"reviewer": 1, "row": 0, "decision": "keep", "label": null}',
    ],
)
def test_what_is_no_decision_is_an_error_that_says_so(body: bytes, client: Client, tmp_path: Path) -> None:
    status, answer, _ = client.send("POST", "/api/decide", body)
    assert (status, bool(json.loads(answer)["error"])) == (400, True)
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../server.py", 404),
        ("/page.html.j2", 404),
        ("/api/item?reviewer=anna&row=x", 400),
        ("/api/item?reviewer=anna&row=-1", 400),
        ("/api/item?reviewer=anna&row=77", 400),
        ("/api/queue?reviewer=anna&view=all", 400),
        ("/api/queue", 400),
        ("/picture?row=1", 400),
        ("/picture?row=4&side=9", 500),
    ],
)
def test_what_is_not_there(path: str, status: int, client: Client) -> None:
    found, body, _ = client.send("GET", path)
    assert (found, bool(json.loads(body)["error"])) == (status, True)


def test_pictures_are_at_most_so_large(client: Client) -> None:
    assert client.send("GET", "/picture?row=2&side=9")[1] == b"2 9"
    assert client.send("GET", "/picture?row=2&side=99999")[1] == f"2 {MAX_SIDE}".encode()


def test_the_page_is_escaped_and_asks_nobody_else(client: Client) -> None:
    status, body, headers = client.send("GET", "/")
    text = body.decode()
    assert status == 200
    assert "alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    settings = text.partition('id="settings">')[2].partition("</script>")[0]
    assert json.loads(settings)["command"] == "rayclean run '<b>'"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in ("review.css", "review.js"):
        status, body, _ = client.send("GET", f"/{name}")
        assert status == 200
        text += body.decode()
    assert "http:" not in text
    assert "https:" not in text
    assert "innerHTML" not in text


def test_a_port_that_is_taken_is_an_error(server: ReviewServer) -> None:
    for port in (server.port, 70_000):
        with pytest.raises(ConfigError, match=f"port {port}"):
            ReviewServer(port, server.review, picture, "", None, "")


def test_a_name_that_the_command_gave_holds(tmp_path: Path, server: ReviewServer) -> None:
    server.reviewer = "ben"
    assert Client(server).post("/api/decide", reviewer="anna", row=0, decision="keep", label=None)[0] == 200
    assert (log_bytes(tmp_path, "anna"), bool(log_bytes(tmp_path, "ben"))) == (b"", True)
