"""A Ray that a command starts: a token of its own each time, and sockets whose paths fit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from rayclean.cluster import private_ray
from rayclean.cluster.connect import connect
from rayclean.cluster.private_ray import KUBERNETES, MODE, TOKEN, closed, private_folder
from rayclean.errors import ClusterError, ConfigError

USERS = {MODE: "disabled", TOKEN: "the user's own"}


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set for another cluster."""
    for name, value in USERS.items():
        monkeypatch.setenv(name, value)
    for name in (KUBERNETES, "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def _settings() -> dict[str, str]:
    return {name: os.environ[name] for name in (MODE, TOKEN, KUBERNETES) if name in os.environ}


def _seen_by_core() -> tuple[str, str]:
    """What Ray's core goes by, which keeps it."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    token = AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True)
    return "token" if is_token_auth_enabled() else "disabled", token


def test_each_time_has_a_token_of_its_own_and_leaves_the_users() -> None:
    tokens = set()
    for _ in range(2):
        with closed():
            assert _settings() == {MODE: "token", TOKEN: os.environ[TOKEN], KUBERNETES: "0"}
            assert _seen_by_core() == ("token", os.environ[TOKEN])
            tokens.add(os.environ[TOKEN])
        assert _settings() == USERS
        assert _seen_by_core() == ("disabled", USERS[TOKEN])
    assert len(tokens) == 2
    assert {len(token) for token in tokens} == {64}


def test_an_error_leaves_the_users_settings_too() -> None:
    with pytest.raises(KeyError), closed():
        raise KeyError
    assert _settings() == USERS


def test_a_process_that_is_connected_already_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"ray\.shutdown\(\)"), closed():
        pass
    assert _settings() == USERS


@pytest.mark.timeout(120)
def test_a_long_folder_for_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    """In a process of its own, as what starts there keeps the folder."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    code = (
        "import ray; from rayclean.cluster.connect import connect\n"
        "for _ in range(2):\n"
        "    with connect():\n"
        "        print(ray.get(ray.remote(lambda: 'works').remote()))\n"
    )
    env = {**os.environ, "TMPDIR": str(deep), "HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["works", "works"], ended.stderr
    assert not (tmp_path / ".ray").exists()


def test_ray_has_a_folder_that_nobody_else_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("deep" * 30)
    for usual, below in (("/tmp", "/tmp"), (str(deep), "/tmp")):
        monkeypatch.setattr(tempfile, "gettempdir", lambda usual=usual: usual)
        folder = Path(below, f"rayclean-{os.getuid()}")
        assert private_folder() == str(folder / "ray")
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_long_folder_that_the_user_named_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    below = len(private_ray.SOCKET_BELOW)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * (private_ray.MAX_SOCKET_BYTES - below - 1))
    assert private_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * (private_ray.MAX_SOCKET_BYTES - below))
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR=/x+ is too long.*108 bytes.*at most"):
        private_folder()


def test_of_a_users_cluster_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 200)  # of no concern there
    seen = []

    def init(**_: object) -> None:
        seen.append(_settings())
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no cluster answers there"), connect():
        pass
    assert seen == [USERS]
    assert _settings() == USERS


def test_a_start_that_fails_is_one_line_and_leaves_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("first\nthe node timed out")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match=r"^Ray could not start on this machine: the node timed out$"):
        connect().__enter__()
    assert _settings() == USERS
