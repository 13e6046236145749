"""How the command leaves."""

from __future__ import annotations

import shlex
import subprocess
import sys

from rayclean import __version__

# What is left to the interpreter's end would abort, as native threads sometimes do there.
ABORTS_AT_THE_END = """
import atexit, os, sys
atexit.register(os.abort)
sys.argv = ["rayclean", *sys.argv[1:]]
from rayclean.cli import main
main()
"""


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ABORTS_AT_THE_END, *arguments], capture_output=True, text=True)


def test_a_crash_at_the_interpreters_end_does_not_change_the_exit_code() -> None:
    ended = _call("--version")
    assert (ended.returncode, ended.stdout) == (0, f"rayclean {__version__}\n")


def test_an_error_is_printed_whole_and_is_exit_code_2() -> None:
    ended = _call("status", "/no/such/run")
    assert ended.returncode == 2
    assert "/no/such/run holds no run" in ended.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert _call("run").returncode == 2


def test_a_reader_that_leaves_early_is_no_error() -> None:
    piped = f"exec 2>&1; {shlex.join([sys.executable, '-c', ABORTS_AT_THE_END])} --help | true"
    assert subprocess.run(["bash", "-c", piped], capture_output=True, text=True).stdout == ""
