"""Where a node's processes share files that can be lost: below the folder for temporary files (TMPDIR)."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path


def node_folder(name: str, below: Path | None = None) -> Path:
    """A folder of this user's on this node, made where missing; nobody else reads or writes it.

    Args:
        name: of the folder.
        below: where it lies; None for the folder for temporary files.

    Raises:
        PermissionError: somebody else has put a folder of that name there, and could put other images into it.
    """
    folder = (below or Path(tempfile.gettempdir())) / f"rayclean-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode):
        raise PermissionError(errno.EACCES, "is not a folder of this user; remove it, or set TMPDIR", str(folder))
    (folder / name).mkdir(mode=0o700, exist_ok=True)
    return folder / name
