"""Which ports a command opens, and what whoever has no token gets out of them.

    python tools/faults/doors.py -- rayclean run configs/digits.yaml

While the command is at work, each port on which one of its processes listens is knocked at once: all calls of Ray's
services and its HTTP requests, without a token and with a wrong one. Two of Ray's own clients without the token try to
join. Prints a table; ends with exit code 1 where anything was let in.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tools.faults.driver import BIN, started
from tools.faults.knocks import CALLS, REQUESTS, Answers, knock

LOOK_EVERY_S = 0.3
LOOPBACK, ALL = ("127.0.0.1", "::1"), ("0.0.0.0", "::")
TOKEN = "RAY_AUTH_TOKEN"
CLIENT_S = 60.0
KINDS = {
    "gcs_server": "GCS",
    "raylet/raylet": "raylet",
    "ray::DashboardAgent": "dashboard agent",
    "ray::RuntimeEnvAgent": "environment agent",
    "dashboard/dashboard.py": "dashboard",
    "monitor.py": "autoscaler",
    "ray::": "worker",
}

INIT = (sys.executable, "-c", "import ray; ray.init(address='{gcs}', logging_level='critical'); print(ray.nodes())")
CLIENTS = {
    "ray.init() without a token": ("disabled", INIT),
    "ray.init() with a wrong token": ("token", INIT),
    "a node that joins without a token": ("disabled", (str(BIN / "ray"), "start", "--block", "--address={gcs}")),
}


@dataclass(frozen=True, order=True)
class Door:
    """A port on which a process listens."""

    kind: str
    scope: str
    pid: int
    port: int


@dataclass
class Watch:
    """Knocks at each port of some processes as it comes up, until it is told to end.

    Attributes:
        processes: gives those that live.
        answers: by door.
        missed: doors that were gone before they were tried.
        clients: by name, what one of Ray's own clients came to.
        leaks: processes with the token among their arguments.
        tokens: those that the processes know.
    """

    processes: Callable[[], Sequence[psutil.Process]]
    answers: dict[Door, Answers] = field(default_factory=dict)
    missed: set[Door] = field(default_factory=set)
    clients: dict[str, str] = field(default_factory=dict)
    leaks: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)
    _trials: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Watch:
        """Starts the thread that looks for what is open."""
        self._trials.append(threading.Thread(target=self._look_again))
        self._trials[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends, and waits for the clients."""
        self._ended.set()
        for trial in self._trials:
            trial.join()

    def _look_again(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        kind = kind_of(process)
        token = process.environ().get(TOKEN)
        if token:
            self.tokens.add(token)
        if any(each in " ".join(process.cmdline()) for each in self.tokens):
            self.leaks.add(kind)
        for socket in process.net_connections("inet"):
            if socket.status != psutil.CONN_LISTEN:
                continue
            ip, port = socket.laddr
            scope = "loopback" if ip in LOOPBACK else "all interfaces" if ip in ALL else "this machine's address"
            door = Door(kind, scope, process.pid, port)
            if door in self.answers or door in self.missed:
                continue
            try:
                self.answers[door] = knock(outer_address() if ip in ALL else ip, port, next(iter(self.tokens), None))
            except OSError:
                self.missed.add(door)
                continue
            if kind == "GCS":
                self._try_clients(f"{outer_address()}:{port}")

    def _try_clients(self, gcs: str) -> None:
        for name in CLIENTS:
            trial = threading.Thread(target=self._try_client, args=(name, gcs))
            self._trials.append(trial)
            trial.start()

    def _try_client(self, name: str, gcs: str) -> None:
        mode, words = CLIENTS[name]
        command = [word.format(gcs=gcs) for word in words]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env = {**kept, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "0" * 64 if mode == "token" else ""}
        with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            env["RAY_TMPDIR"] = folder
            with started(command, env, Path(folder) / "logs") as client:
                try:
                    ended = client.wait(CLIENT_S)
                    self.clients[name] = "let in" if ended.code == 0 else "refused"
                except subprocess.TimeoutExpired:
                    said = client.out.read_text() + client.err.read_text()
                    self.clients[name] = "let in" if "Ray runtime started" in said else "refused"

    def let_in(self) -> list[str]:
        """All that was let in without the token."""
        found = [f"{door.kind}, {door.scope}: {call}" for door, each in self.answers.items() for call in each.let_in]
        return found + [name for name, came_to in self.clients.items() if came_to != "refused"]


def kind_of(process: psutil.Process) -> str:
    """What a process is to Ray."""
    command = " ".join(process.cmdline())
    return next((kind for sign, kind in KINDS.items() if sign in command), "driver")


def outer_address() -> str:
    """An address of this machine under which others reach it."""
    found = [
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family.name == "AF_INET"
    ]
    return next((address for address in found if not address.startswith("127.")), LOOPBACK[0])


def table(watch: Watch) -> str:
    """One line per kind of port: what is there, and what it came to."""
    lines = [
        "| process | listens on | speaks | ports | calls tried | refused | let in | anybody is told | with the token |",
        "|---|---|---|--:|--:|--:|--:|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[Answers]] = {}
    for door, answers in sorted(watch.answers.items(), key=lambda pair: pair[0]):
        groups.setdefault((door.kind, door.scope, answers.speaks), []).append(answers)
    for (kind, scope, speaks), each in groups.items():
        told = sorted({call.split(".")[1] for answers in each for call in answers.told})
        told += ["figures"] if speaks == "figures" else []
        shown = Counter(answers.with_token for answers in each if answers.with_token)
        sums = [sum(answers.tried for answers in each), sum(answers.refused for answers in each)]
        cells = [kind, scope, speaks, len(each), *sums, sum(len(answers.let_in) for answers in each)]
        cells += [", ".join(told), ", ".join(f"{word} {count}x" for word, count in shown.items())]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        f"| {name} | | | | 1 | {int(to == 'refused')} | {int(to != 'refused')} | | |"
        for name, to in watch.clients.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Runs a command and knocks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="what to run")
    command = parser.parse_args().command
    command[0] = str(BIN / command[0]) if (BIN / command[0]).exists() else command[0]
    with (
        tempfile.TemporaryDirectory() as logs,
        started(command, os.environ, Path(logs)) as driver,
        Watch(driver.living) as watch,
    ):
        code = driver.process.wait()
        said = driver.err.read_text()
    sys.stdout.write(
        f"{table(watch)}\n\n{len(CALLS)} calls and {len(REQUESTS)} requests per port, each without a token and with a "
        f"wrong one; {len(watch.missed)} ports were gone before they were tried; the token stood in the arguments of "
        f"{len(watch.leaks)} processes; the command ended with exit code {code}\n"
    )
    for each in watch.let_in():
        sys.stdout.write(f"let in: {each}\n")
    sys.stderr.write(said if code else "")
    return int(bool(code or watch.let_in() or watch.leaks))


if __name__ == "__main__":
    sys.exit(main())
