"""A web server that gives files to whom signs, for tests of signed URLs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

SECRET, LATER = "c2VjcmV0LXNpZ25hdHVyZQ", "YW5vdGhlci1zaWduYXR1cmU"
TOKEN = "folder-token-7f3a"  # part of a path
VARIABLE = "RAYCLEAN_TEST_SHARDS"
TELLTALE = (SECRET, TOKEN, "127.0.0.1", "X-Expires")  # words of the URLs


class _Signed(SimpleHTTPRequestHandler):
    """Ranges of files, to whom signs: a 403 that repeats the URL to all others."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if parse_qs(url.query).get("sig", [""])[0] not in (SECRET, LATER):
            self.send_error(403, explain=f"no: {self.path}")
            return
        file = Path(self.directory) / url.path.replace(f"/{TOKEN}/", "").strip("/")
        if not file.is_file():
            self.send_error(404, explain=self.path)
            return
        data = file.read_bytes()
        first, last = 0, len(data) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), last)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{len(data)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[first : last + 1])

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def signing(folder: Path) -> Iterator[Callable[..., str]]:
    """Serves the tars of a folder: `signed()` gives their URLs, one a line."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Signed, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    names = sorted(path.name for path in folder.glob("*.tar"))

    def signed(secret: str = SECRET, extra: str = "") -> str:
        root = f"http://127.0.0.1:{server.server_port}/{TOKEN}"
        return "\n".join(f"{root}/{name}?X-Expires=60&sig={secret}" for name in [*names, *extra.split()])

    try:
        yield signed
    finally:
        server.shutdown()
        server.server_close()
