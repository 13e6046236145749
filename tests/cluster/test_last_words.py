"""What a process was at, and the signal that ended it, outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rayclean.cluster.last_words import Death, deaths, in_words

CODE = """
import os, sys, time
from rayclean.cluster.last_words import LastWords
words = LastWords("pool")
with words.doing("an earlier unit of a longer name"):
    pass
with words.doing("unit 7"):
    print("at work", flush=True)
    time.sleep(60) if sys.argv[1] == "0" else os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"rayclean-{os.getuid()}" / "deaths"


def _worker(number: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CODE, str(number)], stdout=subprocess.PIPE, text=True)


def test_each_signal_is_named_with_what_was_done() -> None:
    numbers = [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGKILL]
    for number, worker in [(number, _worker(number)) for number in numbers]:
        assert worker.wait(60) == -number
    assert sorted(death.signal for death in deaths("pool")) == sorted(number.name for number in numbers)
    assert {death.at for death in deaths("pool")} == {"unit 7"}
    assert deaths("another") == []


def test_who_lives_or_ended_at_nothing_has_not_died_at_work(folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE], stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert ended.returncode == 1  # an error in Python, which tells of itself
    (left,) = folder.iterdir()
    os.utime(left, times=(0, 0))
    living = _worker(0)
    try:
        assert living.stdout is not None
        assert living.stdout.readline() == "at work\n"
        assert deaths("pool") == []
        assert left not in folder.iterdir()  # the living one has swept it
    finally:
        living.kill()
        living.communicate()
    assert deaths("pool") == [Death("unit 7", "SIGKILL")]


def test_memory_is_blamed_for_nothing_but_a_silent_death() -> None:
    assert in_words({"SIGSEGV"}) == "SIGSEGV, a fault in native code"
    assert in_words({"SIGKILL"}) == "SIGKILL, out of memory?"
    assert in_words({"SIGABRT", "SIGKILL"}).startswith("SIGABRT and SIGKILL")
    assert "memory" not in in_words(set())
