"""Copies of large remote files on a node's disk, so that its processes map one file instead of each holding its own."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rayclean.storage.node import node_folder

MIN_BYTES = 2**20  # a smaller file is read faster than it is looked up
MAX_BYTES = 16 * 2**30  # of all copies; those that were used last stay
FREE_SHARE = 0.5  # of the disk's free space, at most
PART_BYTES = 64 * 2**20
SUFFIX = ".copy"
log = logging.getLogger(__name__)


def copy_of(identity: str, num_bytes: int, fetch: Callable[[int, int], bytes]) -> Path | None:
    """The node's copy of a remote file, fetched first where there is none.

    Args:
        identity: tells one version of a file from all others: its URL and tag.
        num_bytes: its size.
        fetch: gives the bytes [start, stop).

    Returns:
        None where the file is small, or the node has no room for it: then it is to be read. A copy may go at any time
        to make room for another; whoever has mapped it by then keeps it.
    """
    if num_bytes < MIN_BYTES:
        return None
    try:
        folder = node_folder("files")
        path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}{SUFFIX}"
        with open(folder / f"{path.stem}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches, the others wait for it
            if not path.exists():
                if not _make_room(folder, num_bytes):
                    return None
                _fetch(path, num_bytes, fetch)
            os.utime(path)
        return path
    except OSError as error:
        log.warning("no copies of run files on this node (%s); each process reads its own", error)
        return None


def _fetch(path: Path, num_bytes: int, fetch: Callable[[int, int], bytes]) -> None:
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        for start in range(0, num_bytes, PART_BYTES):
            file.write(fetch(start, min(start + PART_BYTES, num_bytes)))
    os.rename(temporary, path)


def _make_room(folder: Path, num_bytes: int) -> bool:
    """Removes the copies that were used longest ago until there is room; those that are mapped live on unnamed."""
    copies = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.glob(f"*{SUFFIX}"))
    held = sum(size for _, size, _ in copies)
    bound = min(MAX_BYTES, held + int(shutil.disk_usage(folder).free * FREE_SHARE))
    if num_bytes > bound:
        return False
    for _, size, path in copies:
        if held + num_bytes <= bound:
            break
        path.unlink(missing_ok=True)
        held -= size
    return True
