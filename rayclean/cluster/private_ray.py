"""Ray as we start it: closed to everybody else, in a folder of this user whose sockets' paths are short enough.

All of Ray's servers but the metrics' listen on all interfaces, and whoever may call them runs code as this user. Ray
refuses calls without its token, which its processes find in their environment: it is in no argument list and no file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from rayclean.errors import ConfigError
from rayclean.storage.node import node_folder

# What Ray reads of the environment to know whom to let in; a path of a token is second to the token itself.
MODE, TOKEN, KUBERNETES = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_K8S_TOKEN_AUTH"
SHORT_FOLDER = "/tmp"
MAX_SOCKET_BYTES = 107  # Linux has no longer path of a socket
# Below a folder for temporary files: ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store.
SOCKET_BELOW = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Ray that is started in the block lets in only what it starts itself; afterwards all is as it was.

    A fresh token is set whatever the user's settings are, since those belong to other clusters. Ray keeps mode and
    token in its core from the first time that they are asked for, in this process perhaps long ago: hence `_read_anew`.

    Raises:
        ConfigError: this process is connected to Ray already, which would lose its token.
    """
    if ray.is_initialized():
        raise ConfigError("this process is connected to Ray already; call ray.shutdown() first, or set RAY_ADDRESS")
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, KUBERNETES)}
    os.environ |= {MODE: "token", TOKEN: secrets.token_hex(32), KUBERNETES: "0"}
    try:
        _read_anew()
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_anew()


def _read_anew() -> None:
    """Has Ray's core take mode and token from the environment as it is now; in this order, as Ray does it itself.

    The other way round a thread of the last Ray that is still ending could look for a token that is gone, which is
    fatal while the mode says that there is one.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def private_folder() -> str | None:
    """A folder for Ray's own files that this user alone can enter; None where the user has named one by RAY_TMPDIR.

    Ray lets everybody write where its sockets and logs lie. Where TMPDIR is too deep for sockets, it is below /tmp.

    Raises:
        ConfigError: the user has named one that is too deep, or none can be made.
    """
    if named := os.environ.get("RAY_TMPDIR"):
        _check_depth(named)
        return None
    usual = tempfile.gettempdir()
    below = usual if _socket_bytes(f"{usual}/rayclean-{os.getuid()}") <= MAX_SOCKET_BYTES else SHORT_FOLDER
    try:
        return str(node_folder("ray", Path(below)))
    except OSError as e:
        raise ConfigError(f"{below} cannot hold Ray's files ({e}); set RAY_TMPDIR to another folder") from e


def _socket_bytes(folder: str) -> int:
    return len(os.fsencode(folder + SOCKET_BELOW))


def _check_depth(named: str) -> None:
    if (deepest := _socket_bytes(named)) > MAX_SOCKET_BYTES:
        raise ConfigError(
            f"RAY_TMPDIR={named} is too long: the paths of Ray's sockets below it would have {deepest} bytes, and the "
            f"system allows {MAX_SOCKET_BYTES}; name a folder of at most {MAX_SOCKET_BYTES - len(SOCKET_BELOW)} bytes"
        )
