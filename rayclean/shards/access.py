"""Random access to the images of shards by offset."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import fsspec

from rayclean.errors import ShardChangedError
from rayclean.shards.decode import Pixels, decode_image, fit_image
from rayclean.shards.urls import ShardIdentity, local_path, stat_shard

MAX_OPEN_FILES = 64


class PixelReader:
    """Reads images by (shard, offset, size): `pread` on files kept open, ranged requests elsewhere.

    One a thread: a file that is closed to make room may be in use by another.

    Args:
        urls: of the shards, in the order of their numbers.
        size: side of the images that `read` gives.
        max_pixels: see `decode_image`.
        identities: what each shard was when its offsets were found, checked when it is first opened.
    """

    def __init__(
        self,
        urls: Sequence[str],
        size: int,
        max_pixels: float,
        identities: Sequence[ShardIdentity] | None = None,
    ) -> None:
        self.urls, self.size, self.max_pixels, self.identities = urls, size, max_pixels, identities
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._remote: dict[int, tuple[Any, str]] = {}

    def read(self, shard: int, offset: int, num_bytes: int) -> Pixels:
        """Decodes one image.

        Returns:
            (size, size, 3) uint8, RGB.

        Raises:
            ShardChangedError: the shard is another one than recorded.
            BadSample: the bytes are no image; not for offsets of the catalog.
        """
        return fit_image(decode_image(self.read_bytes(shard, offset, num_bytes), self.max_pixels), self.size)

    def read_bytes(self, shard: int, offset: int, num_bytes: int) -> bytes:
        """Bytes [offset, offset + num_bytes) of a shard.

        Raises:
            ShardChangedError: the shard is another one than recorded, or ends before.
        """
        if local_path(self.urls[shard]) is not None:
            data = _pread(self._file(shard).fileno(), offset, num_bytes)
        else:
            fs, path = self._store(shard)
            data = fs.cat_file(path, start=offset, end=offset + num_bytes)
        if len(data) != num_bytes:
            raise ShardChangedError(
                f"{self.urls[shard]}: expected {num_bytes} bytes at offset {offset}, found {len(data)}; "
                "the shard changed, run again to catalog the new content"
            )
        return data

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def _file(self, shard: int) -> BinaryIO:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        while len(self._files) >= MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        try:
            file = open(local_path(self.urls[shard]) or "", "rb")  # noqa: SIM115 - kept open
            # After the opening: a file put in its place before or since is not the one recorded.
            self._check(shard)
        except FileNotFoundError as error:
            raise self._changed(shard, "no such file") from error
        self._files[shard] = file
        return file

    def _store(self, shard: int) -> tuple[Any, str]:
        if shard not in self._remote:
            try:
                self._check(shard)
            except FileNotFoundError as error:
                raise self._changed(shard, "no such file") from error
            self._remote[shard] = fsspec.core.url_to_fs(self.urls[shard])
        return self._remote[shard]

    def _check(self, shard: int) -> None:
        if self.identities is None:
            return
        found, expected = stat_shard(self.urls[shard]), self.identities[shard]
        if (found.size, found.tag) != (expected.size, expected.tag):
            raise self._changed(shard, f"{found.size} bytes (tag {found.tag})")

    def _changed(self, shard: int, found: str) -> ShardChangedError:
        expected = self.identities[shard] if self.identities else None
        recorded = f"{expected.size} bytes (tag {expected.tag})" if expected else "the shard of the catalog"
        return ShardChangedError(
            f"{self.urls[shard]} changed since it was cataloged: found {found}, expected {recorded}; "
            "run again to catalog the new content"
        )


def _pread(fd: int, offset: int, num_bytes: int) -> bytes:
    data = os.pread(fd, num_bytes, offset)
    while 0 < len(data) < num_bytes:  # network file systems may give less than asked for
        more = os.pread(fd, num_bytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
