"""Opening a shard for reading from its start: a local file, or ranges of a remote one."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from rayclean.errors import ShardChangedError
from rayclean.shards.urls import file_system, local_path, unreadable
from rayclean.storage.remote import patiently

LOCAL_READ_BYTES = 2**20
# A request costs about as much time as 2 MB of transfer; more would only wait longer for its first byte.
REMOTE_READ_BYTES = 8 * 2**20


class RemoteFile(io.RawIOBase):
    """A file of an object store, read by ranged requests that are tried again while the store is away.

    Args:
        fs: its file system.
        path: as the file system knows it.

    Raises:
        OSError: what `fs` raises where there is no such file.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path, self.position = fs, path, 0
        self.size = int(patiently(fs.info, path)["size"])

    def readable(self) -> bool:
        """True: it is for reading."""
        return True

    def seekable(self) -> bool:
        """True: any position can be read."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position, without a request."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def readall(self) -> bytes:
        """The rest of the file."""
        parts = []
        while part := self.read(REMOTE_READ_BYTES):
            parts.append(part)
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from the position on by one request; 0 at the end."""
        stop = min(self.position + len(buffer), self.size)
        if stop <= self.position:
            return 0
        data: bytes = patiently(self.fs.cat_file, self.path, start=self.position, end=stop)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def open_shard(url: str) -> BinaryIO:
    """Opens a shard for reading from the start, seekable and buffered.

    Raises:
        InputError: missing, or no access. Other failures pass, since a retry may help.
    """
    path = local_path(url)
    try:
        if path is not None:
            return open(path, "rb", buffering=LOCAL_READ_BYTES)
        fs, name = file_system(url)
        return cast(BinaryIO, io.BufferedReader(RemoteFile(fs, name), REMOTE_READ_BYTES))
    except (FileNotFoundError, PermissionError, IsADirectoryError, ImportError) as error:
        raise unreadable(url, error) from error


def read_content(file: BinaryIO, offset: int, num_bytes: int, url: str) -> bytes:
    """Bytes [offset, offset + num_bytes) of a shard that was long enough when it was opened.

    Raises:
        ShardChangedError: it became shorter.
    """
    file.seek(offset)
    content = file.read(num_bytes)
    if len(content) < num_bytes:
        raise ShardChangedError(f"{url} became shorter while it was read; run again once nothing writes to it")
    return content
