"""The page and what it asks for, on the loopback of this machine alone."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import jinja2

from rayclean.decisions.entries import Choice
from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.review.connections import IDLE_S, MAX_HEAD_BYTES, BoundedServer, Head
from rayclean.review.door import HOST, Door, Refused
from rayclean.review.state import Review, parse_view

MAX_BODY_BYTES = 64 * 2**10
MAX_SIDE = 640
HELD_PICTURES = 400
FOLDER = Path(__file__).parent / "templates"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
log = logging.getLogger(__name__)
Answer = tuple[bytes, str]
Picture = Callable[[int, int], bytes]  # row, side -> PNG


class ReviewServer(BoundedServer):
    """Serves one review.

    Args:
        port: 0 for any that is free.
        review: the decisions and what is offered.
        picture: gives a row's picture, at most so large; it is called from many threads. None where samples have no
            images.
        title: of the page.
        reviewer: whose page it is; None where each page asks.
        command: what takes the decisions in.

    Raises:
        ConfigError: the port cannot be had.
    """

    def __init__(
        self, port: int, review: Review, picture: Picture | None, title: str, reviewer: str | None, command: str
    ) -> None:
        self.review, self.reviewer, self.command = review, reviewer, command
        self.pictures = None if picture is None else _Held(picture)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as e:
            cause = getattr(e, "strerror", None) or e
            raise ConfigError(f"port {port} of {HOST}: {cause}; choose another, or 0 for any that is free") from e
        self.door = Door(self.port)
        pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
        )
        names = [{"label": label, "name": name} for label, name in enumerate(review.queue.names)]
        settings = {"reviewer": reviewer, "classes": names, "command": command, "pictures": picture is not None}
        self.page = pages.get_template("page.html.j2").render(title=title, settings=settings).encode()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A page that is closed while it is answered is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            log.exception("review: a connection failed")


class _Held:
    """Pictures that were asked for lately."""

    def __init__(self, picture: Picture) -> None:
        self._picture, self._lock = picture, threading.Lock()
        self._held: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def get(self, row: int, side: int) -> bytes:
        with self._lock:
            if (row, side) in self._held:
                self._held.move_to_end((row, side))
                return self._held[row, side]
        png = self._picture(row, side)
        with self._lock:
            self._held[row, side] = png
            while len(self._held) > HELD_PICTURES:
                self._held.popitem(last=False)
        return png


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version = "rayclean"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def setup(self) -> None:
        super().setup()
        self.rfile = Head(cast(io.BufferedReader, self.rfile).detach())

    def handle_one_request(self) -> None:
        cast(Head, self.rfile).left = MAX_HEAD_BYTES
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: no line per request."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request at all."""
        self._send(HTTPStatus(code), *_json({"error": message or HTTPStatus(code).phrase}))

    def _answer(self, respond: Callable[[str, Mapping[str, str]], Answer]) -> None:
        try:
            path, query = self.server.door.enter(self.path, self.headers)
        except Refused as e:
            self.send_error(e.status, str(e))
            return
        with self.server.at_work(self.request):
            status, body, kind = self._result(lambda: respond(path, query))
            self._send(status, body, kind)

    def _result(self, respond: Callable[[], Answer]) -> tuple[HTTPStatus, bytes, str]:
        try:
            return HTTPStatus.OK, *respond()
        except Refused as e:
            return e.status, *_json({"error": str(e)})
        except (RaycleanError, OSError) as e:
            return _status_of(e), *_json({"error": str(e)})
        except Exception as e:  # a bug must be seen on the page, which else would wait for ever
            log.exception("review: %s", self.command)
            return HTTPStatus.INTERNAL_SERVER_ERROR, *_json({"error": f"{type(e).__name__}: {e}"})

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        if status != HTTPStatus.OK:
            self.close_connection = True  # a body may not have been read
        self.send_response(status)
        kept = "private, max-age=86400" if kind == "image/png" else "no-store"
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": kept}
        if status == HTTPStatus.OK and kind.startswith("text/html"):
            headers["Set-Cookie"] = self.server.door.cookie
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _get(self, path: str, query: Mapping[str, str]) -> Answer:
        review = self.server.review
        if not path:
            return self.server.page, "text/html; charset=utf-8"
        if path in ("review.css", "review.js"):
            kind = "text/css" if path.endswith("css") else "text/javascript"
            return (FOLDER / path).read_bytes(), f"{kind}; charset=utf-8"
        if path == "picture":
            if self.server.pictures is None:
                raise Refused(HTTPStatus.NOT_FOUND, "the samples have no images (data.image is none)")
            side = min(max(_number(query, "side"), 1), MAX_SIDE)
            return self.server.pictures.get(_number(query, "row"), side), "image/png"
        if path in ("api/queue", "api/item"):
            view, reviewer = parse_view(query.get("view", "open")), self._reviewer(query.get("reviewer"))
            if path == "api/item":
                return _json(review.item(reviewer, _number(query, "row"), view))
            return _json({"rows": review.rows(reviewer, view), "progress": review.progress()})
        raise Refused(HTTPStatus.NOT_FOUND, f"nothing at {path}")

    def _post(self, path: str, _: Mapping[str, str]) -> Answer:
        sent, review = self._sent(), self.server.review
        reviewer = self._reviewer(sent.get("reviewer"))
        if path == "api/undo":
            return _json({"row": review.undo(reviewer), "progress": review.progress()})
        if path != "api/decide":
            raise Refused(HTTPStatus.NOT_FOUND, f"nothing at {path}")
        row, given, decision, label = (sent.get(name) for name in ("row", "given", "decision", "label"))
        texts = isinstance(given, str) and isinstance(label, str | None)
        if type(row) is not int or not texts or decision not in list(Choice):
            expected = "a row, its given label, a decision, and a label or null"
            raise Refused(HTTPStatus.BAD_REQUEST, f"expected {expected}, found {', '.join(sent)[:200]}")
        review.decide(reviewer, row, Choice(decision), label, given)
        return _json({"progress": review.progress()})

    def _sent(self) -> dict[str, Any]:
        """The body of a POST by a page of this server."""
        self.server.door.check_sender(self.headers)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 15 or int(length) > MAX_BODY_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes of known length"
            )
        try:
            sent = json.loads(self.rfile.read(int(length)))
        except TimeoutError as e:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"expected {length} bytes within {IDLE_S} s") from e
        except (ValueError, RecursionError) as e:
            raise Refused(HTTPStatus.BAD_REQUEST, f"is not JSON that is read here: {e}") from e
        if not isinstance(sent, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected an object")
        return sent

    def _reviewer(self, named: object) -> str:
        """Whose page it is: as the command says, else as the page does."""
        if self.server.reviewer is not None:
            return self.server.reviewer
        if not isinstance(named, str):
            raise InputError("who is deciding? Give a name")
        return named


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} {text!r}: expected a number")
    return int(text)


def _status_of(error: RaycleanError | OSError) -> HTTPStatus:
    is_theirs = isinstance(error, (ConfigError, InputError))
    return HTTPStatus.BAD_REQUEST if is_theirs else HTTPStatus.INTERNAL_SERVER_ERROR


def _json(value: Mapping[str, Any]) -> Answer:
    return json.dumps(value, allow_nan=False).encode(), "application/json"
