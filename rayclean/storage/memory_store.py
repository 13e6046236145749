"""A store of one process: what is kept under a name stays the object that it is, nothing is encoded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rayclean.schema import Array
from rayclean.storage.store import Store

ROOT = "memory"


class MemoryStore(Store):
    """Names and what lies under them; `rayclean.storage.contents` says what that is for each kind of name.

    Attributes:
        images: decoded images of shards that lie nowhere else, (N, size, size, 3) uint8, by URL.
    """

    def __init__(self) -> None:
        self.root = self.path = ROOT
        self.is_local = False
        self.images: dict[str, Array] = {}
        self._folders: dict[str, dict[str, object]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryStore, (), self.__dict__  # whole: there is nothing to open elsewhere

    def keep(self, name: str, content: object) -> None:
        """Puts something under a name, replacing what was there."""
        folder, _, file = name.rpartition("/")
        self._folders.setdefault(folder, {})[file] = content

    def kept(self, name: str) -> object:
        """What lies under a name.

        Raises:
            FileNotFoundError: nothing.
        """
        folder, _, file = name.rpartition("/")
        try:
            return self._folders[folder][file]
        except KeyError:
            raise FileNotFoundError(self.full(name)) from None

    def exists(self, name: str) -> bool:
        """Whether something lies under a name, or below it."""
        folder, _, file = name.rpartition("/")
        return file in self._folders.get(folder, {}) or any(map(_below(name), self._folders))

    def list(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty when there is no such folder."""
        start = len(folder) + 1 if folder else 0
        folders = {name[start:].partition("/")[0] for name in self._folders if not folder or _below(folder)(name)}
        return sorted({*self._folders.get(folder, {}), *folders} - {""})

    def read(self, name: str) -> bytes:
        """The bytes of what was published as bytes."""
        found = self.kept(name)
        if not isinstance(found, bytes):
            raise TypeError(f"{name}: no bytes are kept under this name")
        return found

    def copy(self, name: str) -> str | None:
        """None: nothing lies on a disk."""
        return None

    def publish(self, name: str, data: bytes | memoryview) -> None:
        """Keeps bytes under a name."""
        self.keep(name, bytes(data))

    def create(self, name: str, data: bytes) -> bool:
        """Keeps bytes where nothing lies under the name yet; returns whether it did."""
        if self.exists(name):
            return False
        self.publish(name, data)
        return True

    def move(self, name: str, to: str) -> None:
        """Gives what lies under a name another one."""
        self.keep(to, self.kept(name))
        self.remove(name)

    def remove(self, name: str) -> None:
        """Forgets what lies under a name and below it; missing is fine."""
        folder, _, file = name.rpartition("/")
        self._folders.get(folder, {}).pop(file, None)
        for each in [each for each in self._folders if each == name or _below(name)(each)]:
            del self._folders[each]

    def modified_s(self, name: str) -> float:
        """Now: nothing here is older than its process."""
        return time.time()

    def check(self) -> None:
        """Nothing can be wrong with it."""


def _below(folder: str) -> Callable[[str], bool]:
    return lambda name: name == folder or name.startswith(f"{folder}/")
