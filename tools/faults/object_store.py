"""An object store on loopback, for tests and measurements: moto's S3 with a count of requests, and faults to order.

    .venv/bin/python tools/faults/object_store.py --port 9999
    export AWS_ENDPOINT_URL=http://127.0.0.1:9999 AWS_ACCESS_KEY_ID=rayclean AWS_SECRET_ACCESS_KEY=rayclean

Buckets are made by `PUT /bucket`; all is held in memory and gone when the process ends. Any access key but `rayclean`
is refused. `/-/counts` gives the requests and bytes by method since it was last asked, `/-/places` the same by the
folder in the bucket that holds the object (or `list` where folders are listed). `/-/fault?kind=throttle` with
`&count=20` answers the next 20 requests by 503, `kind=cut` sends half of what the next ones would get, and
`kind=away&seconds=60` drops every connection for a minute. `/-/fill?bucket=b&folder=f&count=10000` makes so many small
objects at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

ACCESS_KEY = "rayclean"
Counts = dict[str, dict[str, int]]  # by method
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
FORBIDDEN = "<Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id does not exist.</Message></Error>"
SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Faults:
    """Counts what passes to an application and spoils what it is told to.

    Args:
        app: the WSGI application that is the store.
    """

    def __init__(self, app: App) -> None:
        self.app, self.lock = app, threading.Lock()
        self.counts: Counts = {}
        self.places: dict[str, Counts] = {}
        self.throttled = self.cut = 0
        self.away_until_s = 0.0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request."""
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            return self._order(path, parse_qs(environ["QUERY_STRING"]), start)
        if time.monotonic() < self.away_until_s:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if f"Credential={ACCESS_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _refuse(environ, start, "403 Forbidden", FORBIDDEN)
        with self.lock:
            throttled, self.throttled = self.throttled > 0, max(0, self.throttled - 1)
        if throttled:
            return _refuse(environ, start, "503 Slow Down", SLOW_DOWN)
        body = b"".join(self.app(environ, start))
        self._count(environ, len(body))
        with self.lock:
            cut, self.cut = self.cut > 0 and len(body) > 1, max(0, self.cut - 1)
        if cut:
            return _broken(body, environ["werkzeug.socket"])
        return [body]

    def _count(self, environ: dict[str, Any], sent: int) -> None:
        method, received = environ["REQUEST_METHOD"], int(environ.get("CONTENT_LENGTH") or 0)
        with self.lock:
            for counts in (self.counts, self.places.setdefault(_place(environ["PATH_INFO"]), {})):
                count = counts.setdefault(method, {"requests": 0, "received_bytes": 0, "sent_bytes": 0})
                count["requests"] += 1
                count["received_bytes"] += received
                count["sent_bytes"] += sent

    def _order(self, path: str, query: dict[str, list[str]], start: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            if path == "/-/counts":
                counts, self.counts = self.counts, {}
                return _answer(start, "200 OK", json.dumps(counts).encode())
            if path == "/-/places":
                places, self.places = self.places, {}
                return _answer(start, "200 OK", json.dumps(places).encode())
            count = int(query.get("count", ["1"])[0])
            if path == "/-/fill":
                _fill(query["bucket"][0], query["folder"][0], count)
                return _answer(start, "200 OK", b"")
            kind = query["kind"][0]
            if kind == "throttle":
                self.throttled = count
            elif kind == "cut":
                self.cut = count
            elif kind == "away":
                self.away_until_s = time.monotonic() + float(query["seconds"][0])
            return _answer(start, "200 OK", b"")


def _place(path: str) -> str:
    """Of `/bucket/run/labels/part.parquet`: `labels`; what lies in no folder of a folder is of `run`."""
    folders = path.strip("/").split("/")[1:-1]
    return (folders[1:2] or folders or ["list"])[0]


def _fill(bucket: str, folder: str, count: int) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for i in range(count):
        store.put_object(bucket, f"{folder}/{i:05d}.tar", str(i).encode())


def _answer(start: Callable[..., Any], status: str, body: bytes) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _refuse(environ: dict[str, Any], start: Callable[..., Any], status: str, error: str) -> Iterable[bytes]:
    """Answers after the whole request has been read; the rest of it would be taken for the next one."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return _answer(start, status, error.encode())


def _broken(body: bytes, connection: socket.socket) -> Iterable[bytes]:
    yield body[: len(body) // 2]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def serve(port: int, ready: Callable[[int], None]) -> None:
    """Serves until the process ends.

    Args:
        port: 0 takes a free one.
        ready: is told the port once connections are taken.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", port, Faults(DomainDispatcherApplication(create_backend_app)), threaded=True)
    ready(server.port)
    server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve an object store on loopback.")
    parser.add_argument("--port", type=int, default=0, help="to listen on (a free one, which is printed)")
    options = parser.parse_args(arguments)
    serve(options.port, lambda port: print(f"http://127.0.0.1:{port}", flush=True))


if __name__ == "__main__":
    main()
