"""A reviewer's log: a decision is on the disk before anybody is told that it is taken."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import unicodedata
from pathlib import Path

from rayclean.decisions.entries import Classes, Entry, read_entries
from rayclean.decisions.naming import REVIEW, Naming, log_name
from rayclean.errors import ConfigError, InputError

MAX_NAME = 40
_NAME = re.compile(r"\w[\w.-]*")  # letters of any script; no slash, no leading dot


def checked_reviewer(name: str) -> str:
    """A reviewer's name, which is that of their log too.

    Raises:
        ConfigError: it cannot be.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigError(
            f"reviewer {name!r}: expected letters, digits, dots, dashes and underscores, {MAX_NAME} at most, such as "
            "anna or a.smith"
        )
    return name


class Log:
    """A log that is open for more; nobody else can have it open meanwhile.

    Args:
        run: the folder of the run.
        reviewer: whose.
        naming: what its classes are called now.

    Attributes:
        entries: all decisions, oldest first.
        repaired: whether the last line was cut, by a crash in the middle of its writing, and had to be removed. It was
            never confirmed to the reviewer.

    Raises:
        RaycleanError: it cannot be opened, another process has it, one of its lines is no decision, or nothing tells
            which classes it is about.
    """

    def __init__(self, run: Path, reviewer: str, naming: Naming) -> None:
        self.path, folder = run / log_name(reviewer), run / REVIEW
        self.reviewer, self._naming = reviewer, naming
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise InputError(f"{self.path}: cannot be opened for writing: {e.strerror or e}") from e
        try:
            self._lock()
            self.entries, self.repaired = self._read()
            for each in (folder, folder.parent):
                _sync_folder(each)
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        """The system lets go of it when the process ends, however it ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self.path}: another `rayclean review` is writing it; end that one, or go on under another name"
            ) from None
        except OSError as e:
            if e.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks: nobody keeps watch
                raise

    def _read(self) -> tuple[list[Entry], bool]:
        data = self.path.read_bytes()
        entries, whole, self._classes = read_entries(
            data, log_name(self.reviewer), lambda classes: self._naming.names_now(self.reviewer, classes)
        )
        if whole < len(data):
            os.ftruncate(self._file, whole)
        elif data and not data.endswith(b"\n"):
            self._write(b"\n")
        os.fsync(self._file)
        self._size = os.fstat(self._file).st_size
        return entries, whole < len(data)

    def append(self, entry: Entry) -> None:
        """Adds a decision; when this returns, it will survive a crash. Classes that are new are named before it.

        Raises:
            OSError: it could not be written, and the log is as before.
        """
        classes = self._naming.current
        try:
            self._write((b"" if classes == self._classes else Classes(classes=classes).encode()) + entry.encode())
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            raise
        self._size, self._classes = os.fstat(self._file).st_size, classes
        self.entries.append(entry)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Lets go of the log."""
        os.close(self._file)


def _sync_folder(folder: Path) -> None:
    """So that a log that is new is found again after a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError:
        pass  # some network file systems refuse to sync folders
    finally:
        os.close(file)
