"""Ctrl-C and SIGTERM without Ray: one line, exit code 130, whenever they come."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.config import Config

# Each sends itself a signal, so that there is no race with the test.
WHILE_IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rayclean.cli.commands":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Finder())
from rayclean.cli import main
main()
"""
AT_WORK = """
import os, signal, sys
from rayclean.run import pipeline
number = int(sys.argv.pop(1))
pipeline.compute = lambda *_: os.kill(os.getpid(), number)
from rayclean.cli import main
main()
"""
TWICE = """
import os, sys, time
from rayclean import interrupts
interrupts.raise_interrupts()
for number, later_s in ((2, 0), (15, 0), (15, interrupts.SAME_S + 1)):
    clock, started = time.monotonic, time.monotonic()
    time.monotonic = lambda: clock() + later_s
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        print("went on", flush=True)
    except KeyboardInterrupt:
        print("raised", flush=True)
    time.monotonic = clock
"""
NUMBERS = [signal.SIGINT, signal.SIGTERM]


def _ended(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_while_the_commands_are_loaded_is_one_line(number: int) -> None:
    ended = _ended(WHILE_IMPORTING, str(int(number)), "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_at_work_is_one_line_that_says_how_to_go_on(
    number: int, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(tmp_path)
    ended = _ended(AT_WORK, str(int(number)), "run", f"{tmp_path}/given.yaml", "run.executor=inline")
    assert ended.returncode == 130
    first, second, *rest = [line for line in ended.stderr.splitlines() if line]
    assert first == f"run {config.run.dir}: looking for its shards"
    assert second.startswith("shards: 4, ")
    assert rest == [f"interrupted; go on with: rayclean run {tmp_path}/given.yaml run.executor=inline"]


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_all() -> None:
    ended = _ended(TWICE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "raised\nwent on\n", "")


LOST = """
import os, signal
from rayclean import interrupts
interrupts.raise_interrupts()
try:
    with interrupts.kept():
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does while it starts
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("told")
try:
    interrupts.check()
except KeyboardInterrupt:
    print("told again")
"""


def test_a_signal_that_another_handler_took_is_told_afterwards() -> None:
    ended = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.split("\n")) == (0, ["told", "told again", ""])
