"""What the server answers, and what it refuses: only pages of its own on this machine may decide."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rayclean.decisions.naming import log_name
from rayclean.errors import ConfigError
from rayclean.review.door import HOST
from rayclean.review.server import MAX_BODY_BYTES, MAX_SIDE, ReviewServer
from tests.review.serving import picture, served
from tests.review.tables import NAMES


class Client:
    """Requests as a page of the server sends them; each may be changed. Paths are below the server's own."""

    def __init__(self, server: ReviewServer) -> None:
        self.host, self.port = f"{HOST}:{server.port}", server.port
        self.below = server.door.path.removesuffix("/")
        self.cookie = server.door.cookie.partition(";")[0]

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        of_pages = {"Host": self.host, "Cookie": f"theme=dark; {self.cookie}"} | (
            {"Origin": f"http://{self.host}", "Content-Type": "application/json"} if method == "POST" else {}
        )
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        connection.putrequest(method, self.below + path, skip_host=True)
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
        given = {"given": NAMES[fields["row"] % 3]} if "row" in fields else {}
        status, body, _ = self.send("POST", path, json.dumps(given | fields).encode())
        return status, json.loads(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    with served(tmp_path) as server:
        yield server


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
    status, answer = client.post("/api/decide", reviewer="anna", row=1, decision="relabel", label="cat")
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


DECISION = json.dumps({"reviewer": "anna", "row": 0, "given": "ant", "decision": "drop", "label": None}).encode()


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
        ({"Content-Length": "1" * 5000}, 413),
        ({"Cookie": None}, 403),
        ({"Cookie": "rayclean="}, 403),
        ({"Cookie": "rayclean"}, 403),
        ({"Cookie": "rayclean=" + "A" * 43}, 403),
        ({"Cookie": "rayclean=\xe9"}, 403),
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
        b'{"reviewer": "anna", "row": "0", "given": "ant", "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": true, "given": "ant", "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": 0, "given": "ant", "decision": "remove", "label": null}',
        b'{"reviewer": "anna", "row": 0, "given": "ant", "decision": ["keep"], "label": null}',
        b'{"reviewer": "anna", "row": 0, "given": "ant", "decision": "undo", "label": null}',
        b'{"reviewer": "anna", "row": 99, "given": "ant", "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": 0, "given": "ant", "decision": "relabel", "label": 1.5}',
        b'{"reviewer": "anna", "row": 0, "given": "ant", "decision": "relabel", "label": "dog"}',
        b'{"reviewer": "anna", "row": 0, "given": "bee", "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": 0, "decision": "keep", "label": null}',
        b'{"reviewer": "anna", "row": %d, "given": "ant", "decision": "keep", "label": null}' % 2**67,
        b'{"reviewer": "anna", "row": 1%s, "given": "ant", "decision": "keep", "label": null}' % (b"0" * 5000),
        b"[" * 30_000 + b"]" * 30_000,
        b'{"row":' * 9_000,
        b'{"reviewer": "../anna", "row": 0, "given": "ant", "decision": "keep", "label": null}',
        b'{"reviewer": 1, "row": 0, "given": "ant", "decision": "keep", "label": null}',
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


def test_the_address_is_the_key(server: ReviewServer, client: Client, tmp_path: Path) -> None:
    path, _, token = server.door.url.partition(f":{server.port}")[2].partition("?token=")
    assert (path, len(token) > 40) == (server.door.path, True)
    stranger = {"Cookie": None}
    status, body, headers = client.send("GET", f"/?token={token}", headers=stranger)
    assert (status, token.encode() in body) == (200, False)
    left = headers["Set-Cookie"]
    assert left == f"rayclean={token}; Path={path}; HttpOnly; SameSite=Strict"
    assert client.send("GET", "/", headers={"Cookie": left.partition(";")[0]})[0] == 200
    for place in ("/", "/?token=", "/?token=x", "/review.js", "/picture?row=0&side=9", "/api/queue?reviewer=anna"):
        status, body, headers = client.send("GET", place, headers=stranger)
        assert (status, headers["Set-Cookie"]) == (403, None)
        assert "`rayclean review` has printed" in json.loads(body)["error"]
    assert client.send("GET", f"/api/queue?reviewer=anna&token={token}", headers=stranger)[0] == 403, (
        "pages have it not"
    )
    assert client.send("POST", f"/api/decide?token={token}", DECISION, stranger)[0] == 403
    assert log_bytes(tmp_path) == b""


def test_each_start_has_another_address(server: ReviewServer, tmp_path: Path) -> None:
    with served(tmp_path / "other") as other:
        assert server.door.path != other.door.path
        assert server.door.cookie != other.door.cookie
        client = Client(other)
        assert client.send("GET", "/", headers={"Cookie": Client(server).cookie})[0] == 403
        client.below = Client(server).below
        assert client.send("GET", "/")[0] == 404
