"""A reviewer's log: nothing that was confirmed is ever lost, and what was cut by a crash does no harm."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayclean.decisions.entries import Choice, Classes, Entry, read_entries
from rayclean.decisions.naming import Naming, log_name
from rayclean.errors import ConfigError, InputError
from rayclean.review.log import MAX_NAME, Log, checked_reviewer

CLASSES = ("ant", "bee", "cat")
NAMED = Classes(classes=CLASSES).encode()


def entry(key: str, decision: Choice = Choice.KEEP, label: str | None = None) -> Entry:
    return Entry(row=0, shard="a.tar", key=key, given="bee", decision=decision, label=label, time="now")


def opened(run: Path, reviewer: str = "anna") -> Log:
    return Log(run, reviewer, Naming(CLASSES))


def read(log: Log) -> tuple[list[Entry], int]:
    found = read_entries(log.path.read_bytes(), "log", lambda classes: classes or ())
    return found.entries, found.whole


def written(run: Path, data: bytes) -> Path:
    path = run / log_name("anna")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


ENTRIES = [entry("a"), entry("b", Choice.RELABEL, "cat"), entry("ключ\n\"'", Choice.DROP)]


def test_a_log_that_is_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    data = NAMED + b"".join(each.encode() for each in ENTRIES)
    ends = [at for at in range(len(data) + 1) if data[at - 1 : at] == b"\n"]
    for cut in range(len(data) + 1):
        path = written(tmp_path, data[:cut])
        log = opened(tmp_path)
        before = list(log.entries)
        assert before == ENTRIES[: len(before)]
        assert len(before) >= data[:cut].count(b"\n") - 1, "a whole line is lost"
        assert log.repaired == (cut > 0 and not any(end - 1 <= cut <= end for end in ends))
        log.append(entry("new"))
        log.close()
        assert read(log) == ([*before, entry("new")], path.stat().st_size)
        assert path.read_bytes().startswith(NAMED)
        assert path.read_bytes().count(NAMED) == 1


def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path, NAMED + ENTRIES[0].encode() + bytes(100))
    log = opened(tmp_path)
    log.append(entry("new"))
    log.close()
    assert path.read_bytes() == NAMED + ENTRIES[0].encode() + entry("new").encode()


def test_the_classes_are_named_first_and_again_where_they_have_changed(tmp_path: Path) -> None:
    turned = CLASSES[::-1]
    for classes in (CLASSES, CLASSES, turned):
        log = Log(tmp_path, "anna", Naming(classes))
        log.append(entry("a"))
        log.close()
    line = entry("a").encode()
    assert log.path.read_bytes() == NAMED + line + line + Classes(classes=turned).encode() + line


def test_a_line_that_is_no_decision_stops_it_and_stays(tmp_path: Path) -> None:
    path = written(tmp_path, NAMED + b"nonsense\n" + ENTRIES[0].encode() + b"{")
    with pytest.raises(InputError, match=r"review/anna\.jsonl, line 2"):
        opened(tmp_path)
    assert path.read_bytes().endswith(b"{")


def test_one_writer_a_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    code = "import sys; from pathlib import Path; from tests.review.test_log import opened; opened(Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "another `rayclean review` is writing it" in ended.stderr
    opened(tmp_path, "ben").close()
    log.close()
    opened(tmp_path).close()


def test_a_line_is_flushed_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    log.append(ENTRIES[0])
    assert synced == [len(NAMED + ENTRIES[0].encode())]


def test_a_line_that_cannot_be_written_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    log.append(ENTRIES[0])
    real = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            log.append(ENTRIES[1])
    assert (log.entries, log.path.read_bytes()) == ([ENTRIES[0]], NAMED + ENTRIES[0].encode())
    log.append(ENTRIES[1])
    assert read(log)[0] == ENTRIES[:2]


@pytest.mark.parametrize("name", ["anna", " anna ", "a.smith-2", "Зоя", "_"])
def test_names_of_reviewers(name: str) -> None:
    assert checked_reviewer(name) == name.strip()


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", ".hidden", "a b", "a\0", "-", "<b>", "x" * (MAX_NAME + 1)])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected letters"):
        checked_reviewer(name)
