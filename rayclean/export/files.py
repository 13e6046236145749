"""The files of an export: published whole, and counted."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from rayclean.storage.store import Store

READ_AT_ONCE = 16  # small files, by threads


class FileFacts(NamedTuple):
    """A file of an export.

    Attributes:
        name: below the output folder.
        num_bytes: its size.
        sha256: of its bytes, hex.
    """

    name: str
    num_bytes: int
    sha256: str


def publish_file(out: Store, name: str, data: bytes | memoryview) -> FileFacts:
    """Publishes a file and says what it is."""
    out.publish(name, data)
    return FileFacts(name, len(data), hashlib.sha256(data).hexdigest())
