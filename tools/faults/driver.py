"""`rayclean` as its users start it: a process, and all that Ray starts below it, in a session of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

BIN = Path(sys.executable).parent
COMPUTING_ACTOR = "ray::UnitActor.run"  # Ray adds the method while one runs
TRAINING_WORKER = "ray::RayTrainWorker"
Found = TypeVar("Found")
Seen = dict[str, tuple[int, int, str]]


def wait_for(what: str, look: Callable[[], Found | None], timeout_s: float, pause_s: float = 0.002) -> Found:
    """The first true thing that `look` returns."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(pause_s)
    return found


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str


class Driver:
    """A command in a session of its own; what it prints goes to files, as Ray would hold a pipe open after its end.

    Args:
        command: the program and its arguments.
        env: the whole environment.
        logs: an existing folder for what it prints.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], logs: Path) -> None:
        self.out, self.err = logs / "out.txt", logs / "err.txt"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def wait(self, timeout_s: float) -> Ended:
        """Waits for the command's end."""
        return Ended(self.process.wait(timeout_s), self.out.read_text(), self.err.read_text())

    def living(self) -> list[psutil.Process]:
        """All processes of the session that live, the command itself among them."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(pid) == self.process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    found.append(psutil.Process(pid))
        return found

    def find(self, title: str) -> psutil.Process | None:
        """A process of the session whose title starts so."""
        return _titled(self.living(), title)

    def kill(self) -> None:
        """Kills the command alone, as the system does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self, grace_s: float) -> None:
        """Ends what is left of the session: asks, waits, then kills."""
        for process in self.living():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        deadline = time.monotonic() + grace_s
        while self.living() and time.monotonic() < deadline:
            self.process.poll()  # a zombie that we have not reaped counts as dead
            time.sleep(0.1)
        for process in self.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait(10)


def _titled(processes: Iterable[psutil.Process], title: str) -> psutil.Process | None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(title):
                return process
    return None


def find_below(parent: psutil.Process, title: str) -> psutil.Process | None:
    """A child whose title starts so."""
    return _titled(parent.children(), title)


@contextlib.contextmanager
def started(command: Sequence[str], env: Mapping[str, str], logs: Path, grace_s: float = 5) -> Iterator[Driver]:
    """A command that runs at most as long as the block."""
    logs.mkdir(parents=True, exist_ok=True)
    driver = Driver(command, env, logs)
    try:
        yield driver
    finally:
        driver.end(grace_s)


def seen(folder: Path, pattern: str) -> Seen:
    """Inode, mtime and digest of each published file that matches, by path."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.glob(pattern)
        if path.is_file() and ".tmp-" not in path.name
    }


def labels(run_dir: Path) -> dict[str, bytes]:
    """All files of the final table by their paths; its manifest without the number of the start that published it."""
    paths = [path for folder in ("labels", "tables") for path in sorted((run_dir / folder).iterdir())]
    found = {str(path.relative_to(run_dir)): path.read_bytes() for path in paths}
    manifest = json.loads(found["tables/_manifest.json"])
    return found | {"tables/_manifest.json": json.dumps([manifest["merge"], manifest["files"]]).encode()}
