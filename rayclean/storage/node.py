"""Where a node's processes share files that can be lost: below the folder for temporary files (TMPDIR)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def node_folder(name: str) -> Path:
    """A folder of this user's on this node, made where missing; nobody else reads it."""
    folder = Path(tempfile.gettempdir()) / f"rayclean-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / name).mkdir(mode=0o700, exist_ok=True)
    return folder / name
