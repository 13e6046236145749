"""What is shown of stages at work: lines where there is no terminal, bars side by side on one."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from rayclean.cluster import progress
from rayclean.cluster.progress import Board, Meter, watched


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of users are hundredths here."""
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.05)
    monkeypatch.setattr(progress, "POLL_S", 0.01)


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


def _soon(holds: Callable[[], bool]) -> None:
    """Waits until something holds; how long that takes is the machine's affair."""
    until_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_stage_is_named_as_it_begins_and_not_before(file: io.StringIO) -> None:
    with Board(Console(file=file)) as board:
        board.opened({"embed": 3, "merge": 0})
        assert file.getvalue() == "embed: 0/3 units\n"
        board.opened({"embed": 2, "merge": 1})
    assert file.getvalue() == "embed: 0/3 units\nmerge: 0/1 units\n"


@pytest.mark.usefixtures("fast")
def test_lines_come_while_no_unit_ends_and_stop_when_all_have(file: io.StringIO) -> None:
    with Board(Console(file=file)) as board:
        board.opened({"embed": 2, "vote": 1})
        _soon(lambda: file.getvalue().count("embed: 0/2") > 2)
        board.meter("embed").advance(2)
        told = file.getvalue().count("embed")
        _soon(lambda: file.getvalue().count("vote: 0/1") > 5)
    assert file.getvalue().count("embed") <= told + 1  # one may have been on its way
    ended = file.getvalue()
    time.sleep(0.1)
    assert file.getvalue() == ended


@pytest.mark.usefixtures("fast")
def test_a_line_counts_what_failed_and_what_was_bad(file: io.StringIO) -> None:
    with Board(Console(file=file)) as board:
        board.meter("catalog", 4).advance(1, rows=10, bad=2)
        board.meter("catalog").advance(0, failed=1)
        _soon(lambda: file.getvalue().count("\n") > 2)
    assert ", 2 bad samples, 1 failed" in file.getvalue()


def test_a_terminal_has_a_bar_of_each_stage_at_work(file: io.StringIO) -> None:
    with Board(Console(file=file, force_terminal=True, width=100)) as board:
        board.opened({"train": 5, "embed": 4})
        board.meter("train").advance(2)
    last = file.getvalue().split("train")[-1]
    assert all(text in last for text in ("2/5", "embed", "0/4")), last


@pytest.mark.usefixtures("fast")
def test_what_others_publish_is_counted_and_at_the_end_all_of_it() -> None:
    shown = Meter("train", 7, Console(quiet=True))
    done = 0
    with watched(shown, lambda: done, rows=10, total=7):
        done = 4
        _soon(lambda: shown.done == 4)
        assert shown.is_at_work
    assert (shown.done, shown.rows, shown.is_at_work) == (7, 70, False)


def test_what_ends_in_an_error_is_not_counted_as_done() -> None:
    shown = Meter("train", 7, Console(quiet=True))
    with pytest.raises(KeyError), watched(shown, lambda: 3, rows=10, total=7):
        raise KeyError
    assert shown.done < 7
