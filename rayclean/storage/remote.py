"""Calls to object stores, tried again while the store is away."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rayclean.errors import UnitError

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE_S = 180.0  # from the first failure on; what a store's restart or a spell of throttling takes
START_PATIENCE_S = 10.0  # before anything has begun: a typing error in an address should not take minutes to show
MAX_PAUSE_S = 10.0
log = logging.getLogger(__name__)

# What the clients raise beside OSError when a request does not get through. By name, as none is a dependency.
_NETWORK_ERRORS = {
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.ConnectionError",
    "botocore.parsers.ResponseParserError",
    "aiohttp.client_exceptions.ClientError",
    "google.auth.exceptions.TransportError",
}
_FINAL_OS_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_transient(error: BaseException) -> bool:
    """Whether a call to an object store that failed so may succeed later: throttled, cut, timed out, server's fault."""
    if isinstance(error, OSError):
        return not isinstance(error, _FINAL_OS_ERRORS)
    names = {"gcsfs": "code", "aiohttp": "status"}  # of what a server has answered
    code = getattr(error, names.get(type(error).__module__.partition(".")[0], ""), None)
    if isinstance(code, int):
        return code >= 500 or code in (408, 429)
    return any(f"{base.__module__}.{base.__qualname__}" in _NETWORK_ERRORS for base in type(error).__mro__)


def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls, and calls again with growing pauses while the error is transient, for `PATIENCE_S`.

    Raises:
        UnitError: the store was away for longer.
        Exception: any other error of the call, at once.
    """
    try:
        return tried_for(PATIENCE_S, call, *args, **kwargs)
    except Exception as error:
        if not is_transient(error):
            raise
        raise UnitError(
            f"the object store has not answered for {PATIENCE_S:.0f} s ({type(error).__name__}: {error}); "
            "run the same command again when it is back"
        ) from error


def tried_for(patience_s: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `patiently`, for so many seconds after the first failure; raises the call's own error in the end."""
    pause_s, deadline = 0.5, None
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            now = time.monotonic()
            deadline = deadline or now + patience_s
            if not is_transient(error) or now + pause_s > deadline:
                raise
            log.debug("object store: %s: %s; trying again", type(error).__name__, error)
            # Many workers meet the same outage; they must not come back as one.
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
