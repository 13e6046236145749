"""`rayclean run` as a job that is submitted to a head which asks for a token."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.faults.driver import BIN, Driver, labels, started, wait_for
from tools.faults.run_folder import RUN_TIMEOUT_S, Finished

pytestmark = pytest.mark.timeout(900)


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@pytest.fixture(scope="module")
def token_env(env: dict[str, str]) -> dict[str, str]:
    """The environment of the head and of who talks to it."""
    return {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def head(token_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a head's job server."""
    port, dashboard, agent, client = _free_ports(4)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--temp-dir={token_env['RAY_TMPDIR']}/head", f"--object-store-memory={100 * 2**20}"),
    ]
    # A node that is told to stop drains for up to 30 s; nothing here needs that.
    with started(command, token_env, tmp_path_factory.mktemp("head"), grace_s=10) as driver:
        wait_for("the head", lambda: _answers(driver, dashboard), 120, pause_s=0.5)
        yield f"http://127.0.0.1:{dashboard}"


def _answers(head: Driver, port: int) -> bool:
    assert head.process.poll() is None, head.err.read_text()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return "Ray runtime started" in head.out.read_text()
    return False


def test_a_submitted_job_ends_with_the_same_table(
    head: str, token_env: dict[str, str], reference: Finished, tmp_path: Path
) -> None:
    # Training and the merge are left to do; from equal weights the rest fits and stays.
    run = reference.run.copy_without(["train", "merge"], tmp_path / "run")
    submit = [str(BIN / "ray"), "job", "submit", "--address", head, "--", *run.command()]
    with started(submit, token_env, tmp_path / "job") as driver:
        ended = driver.wait(RUN_TIMEOUT_S)
    assert ended.code == 0, ended.out + ended.err
    assert f"{run.path}/labels" in ended.out
    assert labels(run.path) == labels(reference.run.path)


def test_without_the_token_the_job_is_refused(head: str, env: dict[str, str], tmp_path: Path) -> None:
    stranger = {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    submit = [str(BIN / "ray"), "job", "submit", "--address", head, "--", "true"]
    with started(submit, stranger, tmp_path / "job") as driver:
        assert driver.wait(60).code != 0
