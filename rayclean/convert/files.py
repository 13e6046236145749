"""Samples that are image files: their bytes as they are, by the path that the data set has for them."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rayclean.convert.samples import Facts, Split
from rayclean.errors import InputError
from rayclean.shards.write import Sample

_STAT_THREADS, _STAT_CHUNK = 32, 1000  # many: on a network file system the waits add up
_UNSAFE = re.compile("[%\x00-\x1f\x7f\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class FileItem:
    """An image file.

    Attributes:
        key: see `make_keys`.
        folder: that `path` is looked up in.
        path: relative, with slashes, as the data set names it.
        size: bytes, when it was listed.
        facts: of the JSON member; many items may share them.
        absent: start of `path` that has no folder here.
    """

    key: str
    folder: str
    path: str
    size: int
    facts: Facts
    absent: str = ""

    def identity(self) -> str:
        """Path, size and facts."""
        return json.dumps([self.path, self.size, self.facts])

    def sample(self) -> Sample:
        """The file's bytes as they are.

        Raises:
            InputError: it cannot be read, or its size is another than when it was listed.
        """
        full = _full(self.folder, self.path, self.absent)
        try:
            content = Path(full).read_bytes()
        except OSError as error:
            raise InputError(f"{full}: cannot be read: {error.strerror}; the same command goes on") from error
        if len(content) != self.size:
            raise InputError(
                f"{full}: found {len(content)} bytes, expected {self.size} as when it was listed; run the same "
                "command again once nothing writes to it"
            )
        facts = {**self.facts, "path": self.path}
        return self.key, {extension_of(self.path): content, "json": json.dumps(facts).encode()}


def _full(folder: str, path: str, absent: str) -> str:
    return os.path.join(folder, path.removeprefix(absent))


def extension_of(path: str) -> str:
    """The extension in lower case, without its dot."""
    return os.path.splitext(path)[1][1:].lower()


def make_keys(paths: Sequence[str]) -> list[str]:
    """Keys for files: unique, and the same when a shard is read back.

    A key is the path without its extension, or all with it where files of the split differ in nothing else. Dots of
    the base name become %2E, and likewise what is no text, and a start that WebDataset takes for its own files.

    Args:
        paths: relative, with slashes, all different.
    """
    keys = [_escape(os.path.splitext(path)[0]) for path in paths]
    return keys if len(set(keys)) == len(keys) else [_escape(path) for path in paths]


def _escape(path: str) -> str:
    path = _UNSAFE.sub(lambda found: f"%{found[0].encode('utf-8', 'surrogateescape')[0]:02X}", path)
    if path.startswith("__"):
        path = f"%5F{path[1:]}"
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.replace(".", "%2E")


def find_files(
    name: str, folder: Path, entries: Mapping[str, Facts], notes: Sequence[str] = (), absent: str = ""
) -> Split:
    """A split of image files; those that are not there are its missing ones.

    Args:
        name: of the split.
        folder: that the paths are relative to.
        entries: facts by path.
        notes: see `Split`.
        absent: start of the paths that has no folder here.

    Raises:
        InputError: a file cannot be looked at.
    """
    paths, at = list(entries), str(folder)
    chunks = [paths[i : i + _STAT_CHUNK] for i in range(0, len(paths), _STAT_CHUNK)]
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        found = threads.map(lambda chunk: [_size(_full(at, path, absent)) for path in chunk], chunks)
        sizes = [size for chunk in found for size in chunk]
    items = [
        FileItem(key, at, path, size, entries[path], absent)
        for key, path, size in zip(make_keys(paths), paths, sizes, strict=True)
        if size is not None
    ]
    missing = [_full(at, path, absent) for path, size in zip(paths, sizes, strict=True) if size is None]
    return Split(name, items, sum(item.size for item in items), missing, notes)


def _size(path: str) -> int | None:
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path!r}: cannot be read: {error}; check the name and the access rights") from error
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None
