"""Who may look and decide: whoever has the address that `rayclean review` prints, on a page of that server.

The address carries a token, which the first page turns into a cookie. The cookie is for a path that is drawn at the
start: a browser sends cookies to every port of a host, and another user's server may have one. Pages of other sites can
do nothing either: a request must name this host (which stops names that are pointed at 127.0.0.1), and a decision must
be JSON that comes from a page of this server (which stops forms and scripts of others).
"""

from __future__ import annotations

import hmac
import secrets
from email.message import Message
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
COOKIE = "rayclean"


class Refused(Exception):
    """A request that no page of this server sends."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Door:
    """The door of a server that listens at a port.

    Attributes:
        path: that everything lies below.
        url: what to open.
        cookie: what the first page leaves in the browser.
    """

    def __init__(self, port: int) -> None:
        self._token = secrets.token_urlsafe(32)
        self._hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
        self.path = f"/{secrets.token_hex(8)}/"
        self.url = f"http://{HOST}:{port}{self.path}?token={self._token}"
        self.cookie = f"{COOKIE}={self._token}; Path={self.path}; HttpOnly; SameSite=Strict"

    def enter(self, target: str, headers: Message) -> tuple[str, dict[str, str]]:
        """What a request asks for: its path without that of the door, and its query.

        Raises:
            Refused: it may not be answered.
        """
        if headers.get("Host") not in self._hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"open http://{self._hosts[0]}: other names are refused")
        try:
            parts = urlsplit(target)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        except ValueError as e:
            raise Refused(HTTPStatus.BAD_REQUEST, f"no address: {e}") from e
        shown = [query.get("token", "")] if parts.path == self.path else []
        for each in ";".join(headers.get_all("Cookie", [])).split(";"):
            name, _, value = each.strip().partition("=")
            shown += [value] if name == COOKIE else []
        if not any(self._is_token(each) for each in shown):
            raise Refused(
                HTTPStatus.FORBIDDEN, "open the address that `rayclean review` has printed; each start has another one"
            )
        return parts.path.removeprefix(self.path), query

    def _is_token(self, text: str) -> bool:
        """How long that takes says nothing of the token."""
        return hmac.compare_digest(text.encode(), self._token.encode())

    def check_sender(self, headers: Message) -> None:
        """A decision must come from a page of this server.

        Raises:
            Refused: it does not.
        """
        origin = headers.get("Origin")
        if origin != f"http://{headers.get('Host')}":
            raise Refused(HTTPStatus.FORBIDDEN, f"a decision from {origin or 'nowhere'} is refused")
        if headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
