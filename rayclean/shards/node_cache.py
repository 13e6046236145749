"""Decoded images that all processes of a node share: one file of fixed slots, mapped by each of them."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rayclean.shards.decode import Pixels
from rayclean.storage.node import node_folder

MARK_BYTES = 8  # of a slot, beside the pixels: which row, and its checksum
FREE_SHARE = 0.5  # of the disk's free space, at most
log = logging.getLogger(__name__)


class NodeCache:
    """Keeps decoded images by row; a row's slot is row modulo the number of slots, and the last one put there stays.

    Where all rows fit, each is decoded once per node, whatever number of processes and snapshots read it. Where they
    do not, pairs that are ordered for locality still find most of their images.

    No lock: a slot carries its row and a checksum over row and pixels, so that what another process is writing, or
    what a crash left half written, counts as missing.

    Args:
        path: of the file; made where missing, with its space reserved.
        num_rows: N.
        size: side of the images.
        max_bytes: of the file, at most.

    Attributes:
        slots: how many images fit; 0: nothing is kept.
    """

    def __init__(self, path: Path, num_rows: int, size: int, max_bytes: int) -> None:
        self.shape, self.entry = (size, size, 3), size * size * 3 + MARK_BYTES
        self.slots = min(num_rows, max_bytes // self.entry)
        self._file: int | None = None
        if self.slots:
            self._map = self._open(path)

    def _open(self, path: Path) -> mmap.mmap:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_SH)  # held for life: `remove_unused` sees that somebody maps it
        length = self.slots * self.entry
        if os.fstat(self._file).st_size != length:
            # A write to a hole on a full disk would kill the process; so the space is taken now.
            os.posix_fallocate(self._file, 0, length)
        return mmap.mmap(self._file, length)

    def close(self) -> None:
        """Gives the file up; others may remove it then."""
        if self._file is not None:
            self._map.close()
            os.close(self._file)
            self._file, self.slots = None, 0

    def get(self, row: int) -> Pixels | None:
        """The image of a row, (size, size, 3) uint8, None where it is not kept."""
        if not self.slots:
            return None
        at = row % self.slots * self.entry
        data = self._map[at : at + self.entry]
        if data[:MARK_BYTES] != _mark(row, data[MARK_BYTES:]):
            return None
        return np.frombuffer(data, np.uint8, offset=MARK_BYTES).reshape(self.shape)

    def put(self, row: int, pixels: Pixels) -> None:
        """Keeps the image of a row, in place of what its slot held."""
        if not self.slots:
            return
        at, data = row % self.slots * self.entry, np.ascontiguousarray(pixels).tobytes()
        self._map[at : at + self.entry] = _mark(row, data) + data


def _mark(row: int, data: bytes) -> bytes:
    """Never all zeros, which an empty slot has: the row is stored plus one."""
    stored = (row + 1) & 0xFFFFFFFF
    return stored.to_bytes(4, "little") + zlib.crc32(data, row & 0xFFFFFFFF).to_bytes(4, "little")


def open_cache(name: str, num_rows: int, size: int, max_bytes: int) -> NodeCache:
    """The node's cache of this name; those of other names that no process maps are removed first.

    A node without room for it goes without, and says so.
    """
    try:
        folder = node_folder("images")
        path = folder / f"{name}.images"
        with _alone(folder):
            remove_unused(folder, path)
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            there = path.stat().st_size if path.exists() else 0
            return NodeCache(path, num_rows, size, there or min(max_bytes, int(free * FREE_SHARE)))
    except OSError as error:
        log.warning("no cache of images on this node (%s); each process decodes for itself", error)
        return NodeCache(Path(), num_rows, size, 0)


def remove_unused(folder: Path, kept: Path) -> None:
    """Removes the caches of a folder that no process maps, but one."""
    for path in sorted(set(folder.glob("*.images")) - {kept}):
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:  # in use
            continue
        finally:
            os.close(file)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of the node at a time."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
