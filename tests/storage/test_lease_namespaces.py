"""Drivers in containers: pid namespaces of their own, the host's name and files; each is a process here."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from rayclean.errors import RunHeldError
from rayclean.storage.lease import current, hold
from rayclean.storage.store import Store

CONTAINERS = {"without its own /proc": ["unshare", "-Urpf"], "with one": ["unshare", "-Urpf", "--mount-proc"]}
# A driver: holds the run, says so, and at each line that it reads publishes what stands there.
DRIVER = textwrap.dedent(
    """
    import sys
    from rayclean.errors import RunHeldError
    from rayclean.storage.lease import hold
    from rayclean.storage.store import Store
    with hold(Store(sys.argv[1]), takeover_s=1, heartbeat_s=0.1) as store:
        print("holds", store.number, flush=True)
        for line in sys.stdin:
            try:
                store.publish("config.yaml", line.strip().encode())
                print("published", flush=True)
            except RunHeldError as e:
                print("late", flush=True)
    """
)


def _can_unshare(command: list[str]) -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*command, "true"], capture_output=True).returncode == 0


@contextmanager
def driver(folder: Path, *container: str) -> Iterator[subprocess.Popen[str]]:
    command = [*container, sys.executable, "-c", DRIVER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):  # it was refused, and has ended
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()


def said(process: subprocess.Popen[str], line: str | None = None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To the driver, which is the child of what made its namespace."""
    children = psutil.Process(process.pid).children(recursive=True)
    for each in children or [psutil.Process(process.pid)]:
        each.send_signal(number)


@pytest.fixture(params=list(CONTAINERS.values()), ids=list(CONTAINERS))
def container(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param
    if not _can_unshare(command):
        pytest.skip(f"{' '.join(command)} is not allowed here")
    return command


def test_two_containers_of_one_host_do_not_push_each_other_aside(container: list[str], tmp_path: Path) -> None:
    with driver(tmp_path, *container) as first:
        assert said(first) == "holds 1"
        with driver(tmp_path, *container) as second:
            assert said(second) == ""  # refused: it has ended
            assert second.wait(20) != 0
        with pytest.raises(RunHeldError), hold(Store(str(tmp_path)), takeover_s=1):
            pass
        assert said(first, "still mine") == "published"


def test_a_driver_that_slept_through_its_takeover_changes_nothing(container: list[str], tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with driver(tmp_path, *container) as old:
        assert said(old) == "holds 1"
        assert said(old, "old") == "published"
        send(old, signal.SIGSTOP)
        with hold(store, takeover_s=1, heartbeat_s=0.1) as held:
            assert held.number == 2
            held.publish("config.yaml", b"new")
            send(old, signal.SIGCONT)
            assert said(old, "late") == "late"
            assert store.read("config.yaml") == b"new"
        assert said(old, "late again") == "late"  # nor once the new one has ended
        assert store.read("config.yaml") == b"new"
        assert current(store) is None
