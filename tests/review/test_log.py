"""A reviewer's log: nothing that was confirmed is ever lost, and what was cut by a crash does no harm."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayclean.errors import ConfigError, InputError
from rayclean.merge.decisions import Choice, Entry, read_entries
from rayclean.review.log import MAX_NAME, Log, checked_reviewer


def entry(key: str, decision: Choice = Choice.KEEP, label: int | None = None) -> Entry:
    return Entry(row=0, shard="a.tar", key=key, given=1, decision=decision, label=label, time="now")


ENTRIES = [entry("a"), entry("b", Choice.RELABEL, 3), entry("ключ\n\"'", Choice.DROP)]


def test_a_log_that_is_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    data = b"".join(each.encode() for each in ENTRIES)
    path = tmp_path / "anna.jsonl"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        log = Log(tmp_path, "anna")
        before = list(log.entries)
        assert before == ENTRIES[: len(before)]
        assert len(before) >= data[:cut].count(b"\n"), "a whole line is lost"
        assert log.repaired == (cut > 0 and len(before) == data[:cut].count(b"\n") and data[cut - 1 : cut] != b"\n")
        log.append(entry("new"))
        log.close()
        assert read_entries(path.read_bytes(), "log") == ([*before, entry("new")], path.stat().st_size)


def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path: Path) -> None:
    (tmp_path / "anna.jsonl").write_bytes(ENTRIES[0].encode() + bytes(100))
    log = Log(tmp_path, "anna")
    log.append(entry("new"))
    log.close()
    assert (tmp_path / "anna.jsonl").read_bytes() == ENTRIES[0].encode() + entry("new").encode()


def test_a_line_that_is_no_decision_stops_it_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    path.write_bytes(b"nonsense\n" + ENTRIES[0].encode() + b"{")
    with pytest.raises(InputError, match=r"anna\.jsonl, line 1"):
        Log(tmp_path, "anna")
    assert path.read_bytes().endswith(b"{")


def test_one_writer_a_log(tmp_path: Path) -> None:
    log = Log(tmp_path, "anna")
    code = "import sys; from pathlib import Path; from rayclean.review.log import Log; Log(Path(sys.argv[1]), 'anna')"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "another `rayclean review` is writing it" in ended.stderr
    Log(tmp_path, "ben").close()
    log.close()
    Log(tmp_path, "anna").close()


def test_a_line_is_flushed_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, "anna")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    log.append(ENTRIES[0])
    assert synced == [len(ENTRIES[0].encode())]


def test_a_line_that_cannot_be_written_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, "anna")
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
    assert (log.entries, log.path.read_bytes()) == ([ENTRIES[0]], ENTRIES[0].encode())
    log.append(ENTRIES[1])
    assert read_entries(log.path.read_bytes(), "log")[0] == ENTRIES[:2]


@pytest.mark.parametrize("name", ["anna", " anna ", "a.smith-2", "Зоя", "_"])
def test_names_of_reviewers(name: str) -> None:
    assert checked_reviewer(name) == name.strip()


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", ".hidden", "a b", "a\0", "-", "<b>", "x" * (MAX_NAME + 1)])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected letters"):
        checked_reviewer(name)
