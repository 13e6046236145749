"""Random access to the images of shards by offset."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, BinaryIO

import numpy as np

from rayclean.errors import InputError, ShardChangedError
from rayclean.schema import Array
from rayclean.shards.decode import BadSample, Pixels, decode_image, fit_image
from rayclean.shards.urls import ShardIdentity, file_system, local_path, stat_shard
from rayclean.storage.draws import pixel_digest
from rayclean.storage.remote import patiently

MAX_OPEN_FILES = 64
# Neighbours in a shard come in one request where no more than this lies between them: their labels and headers.
MAX_GAP_BYTES = 16 * 2**10
MAX_RANGE_BYTES = 8 * 2**20
# Ranges that are asked for at once, and fetched bytes that are held before they are decoded.
REQUESTS = 32
HELD_BYTES = 64 * 2**20
DECODED_AT_ONCE = 256


@dataclass(frozen=True)
class PixelSettings:
    """How images are read.

    Attributes:
        max_pixels: see `decode_image`.
        node_cache_bytes: decoded images that the processes of a node keep together, at most.
    """

    max_pixels: float
    node_cache_bytes: int


class PixelReader:
    """Reads images by (shard, offset, size): `pread` on files kept open, ranged requests elsewhere.

    That a shard is the one of the catalog shows in the pixels, whose digest is compared; a local one is asked for
    its time as well when it is opened, which costs nothing. One reader per thread: a file that is closed to make room
    may be in use by another.

    Args:
        urls: of the shards, in the order of their numbers.
        size: side of the images that `read` gives.
        max_pixels: see `decode_image`.
        identities: what each shard was when its offsets were found.

    Attributes:
        requests: to object stores.
        fetched_bytes: by these requests.
        decoded: images.
    """

    def __init__(
        self,
        urls: Sequence[str],
        size: int,
        max_pixels: float,
        identities: Sequence[ShardIdentity] | None = None,
    ) -> None:
        self.urls, self.size, self.max_pixels, self.identities = urls, size, max_pixels, identities
        self.requests = self.fetched_bytes = self.decoded = 0
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._remote: dict[int, tuple[Any, str]] = {}
        # As many as the worker's CPUs, which Ray puts there. With one, threads would only cost.
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        self._threads = ThreadPoolExecutor(threads, "decode") if threads > 1 else None

    def read(self, shards: Array, offsets: Array, sizes: Array, digests: Array | None) -> Iterator[tuple[int, Pixels]]:
        """Decodes images, in the order of their shards and offsets.

        Args:
            shards: (R,) int, the shard of each.
            offsets: (R,) int64, bytes.
            sizes: (R,) int64, bytes.
            digests: (R, 2) uint64, what the decoded pixels were when the shard was cataloged; None where the catalog
                did not decode them.

        Yields:
            The position in these arrays, and (size, size, 3) uint8, RGB.

        Raises:
            ShardChangedError: a shard is another one than recorded.
            InputError: an image that the catalog did not decode cannot be.
        """
        files = self._fetch(np.lexsort((offsets, shards)), shards, offsets, sizes)

        def decode(item: tuple[int, bytes]) -> tuple[int, Pixels]:
            i, data = item
            digest = None if digests is None else digests[i]
            return i, fit_image(self._decode(int(shards[i]), int(offsets[i]), data, digest), self.size)

        while some := list(islice(files, DECODED_AT_ONCE)):
            # PIL and the digest run without the interpreter's lock.
            decoded = map(decode, some) if self._threads is None else self._threads.map(decode, some)
            yield from decoded
            self.decoded += len(some)

    def _decode(self, shard: int, offset: int, data: bytes, digest: Array | None) -> Pixels:
        try:
            pixels = decode_image(data, self.max_pixels)
        except BadSample as error:
            self._check(shard)
            if digest is None:
                raise InputError(
                    f"{self.urls[shard]}: the image at byte {offset} cannot be read ({error}), and nobody looked at it "
                    "before, since features are there already; repair it, or leave its sample out"
                ) from error
            raise self._changed(shard, f"at byte {offset} {error}") from error
        if digest is not None and pixel_digest(pixels) != digest.tobytes():
            self._check(shard)
            raise self._changed(shard, f"another image at byte {offset}")
        return pixels

    def _fetch(self, order: Array, shards: Array, offsets: Array, sizes: Array) -> Iterator[tuple[int, bytes]]:
        """The files' bytes in an order, remote ones many at a time."""
        waiting: list[int] = []
        held = 0
        for i in order.tolist():
            if local_path(self.urls[shards[i]]) is not None:
                yield i, self.read_bytes(int(shards[i]), int(offsets[i]), int(sizes[i]))
                continue
            waiting.append(i)
            held += int(sizes[i])
            if held >= HELD_BYTES:
                yield from self._fetch_remote(waiting, shards, offsets, sizes)
                waiting, held = [], 0
        yield from self._fetch_remote(waiting, shards, offsets, sizes)

    def _fetch_remote(
        self, items: list[int], shards: Array, offsets: Array, sizes: Array
    ) -> Iterator[tuple[int, bytes]]:
        for group in _near_groups(items, shards, offsets, sizes):
            ranges = [(int(shards[i[0]]), int(offsets[i[0]]), int(offsets[i[-1]] + sizes[i[-1]])) for i in group]
            for inside, (_, start, _), data in zip(group, ranges, self._ranges(ranges), strict=True):
                for i in inside:
                    at = int(offsets[i]) - start
                    yield i, data[at : at + int(sizes[i])]

    def _ranges(self, ranges: list[tuple[int, int, int]]) -> list[bytes]:
        """Ranges (shard, start, stop) of remote shards, asked for at once where their file system can."""
        stores = [self._store(shard) for shard, _, _ in ranges]
        starts, stops = [start for _, start, _ in ranges], [stop for _, _, stop in ranges]
        try:
            # All shards of a bucket share one file system; others are asked one after the other.
            if len({id(fs) for fs, _ in stores}) == 1:
                paths = [path for _, path in stores]
                found = patiently(stores[0][0].cat_ranges, paths, starts, stops, batch_size=REQUESTS, on_error="raise")
            else:
                each = zip(stores, starts, stops, strict=True)
                found = [patiently(fs.cat_file, path, start=start, end=stop) for (fs, path), start, stop in each]
        except FileNotFoundError:
            for shard, _, _ in ranges:
                self._check(shard)
            raise
        self.requests += len(ranges)
        for (shard, start, stop), data in zip(ranges, found, strict=True):
            self.fetched_bytes += len(data)
            if len(data) != stop - start:
                raise self._short(shard, start, stop - start, len(data))
        return list(found)

    def read_bytes(self, shard: int, offset: int, num_bytes: int) -> bytes:
        """Bytes [offset, offset + num_bytes) of a shard.

        Raises:
            ShardChangedError: the shard is another one than recorded, or ends before.
        """
        if local_path(self.urls[shard]) is None:
            return self._ranges([(shard, offset, offset + num_bytes)])[0]
        data = _pread(self._file(shard).fileno(), offset, num_bytes)
        if len(data) != num_bytes:
            raise self._short(shard, offset, num_bytes, len(data))
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
        except FileNotFoundError as error:
            raise self._changed(shard, "no such file") from error
        # After the opening: a file put in its place before or since is not the one recorded.
        self._check(shard)
        self._files[shard] = file
        return file

    def _store(self, shard: int) -> tuple[Any, str]:
        if shard not in self._remote:
            self._remote[shard] = file_system(self.urls[shard])
        return self._remote[shard]

    def _check(self, shard: int) -> None:
        """Raises ShardChangedError where the shard is gone, or by its size and tag another one."""
        if self.identities is None:
            return
        expected = self.identities[shard]
        try:
            found = stat_shard(self.urls[shard])
        except FileNotFoundError as error:
            raise self._changed(shard, "no such file") from error
        if (found.size, found.tag) != (expected.size, expected.tag):
            raise self._changed(shard, f"{found.size} bytes (tag {found.tag})")

    def _short(self, shard: int, offset: int, expected: int, found: int) -> ShardChangedError:
        return ShardChangedError(
            f"{self.urls[shard]}: expected {expected} bytes at offset {offset}, found {found}; "
            "the shard changed, run again to catalog the new content"
        )

    def _changed(self, shard: int, found: str) -> ShardChangedError:
        expected = self.identities[shard] if self.identities else None
        recorded = f"{expected.size} bytes (tag {expected.tag})" if expected else "the shard of the catalog"
        return ShardChangedError(
            f"{self.urls[shard]} changed since it was cataloged: found {found}, expected {recorded}; "
            "run again to catalog the new content"
        )


def _near_groups(items: list[int], shards: Array, offsets: Array, sizes: Array) -> Iterator[list[list[int]]]:
    """Ordered items cut where a new request begins, `REQUESTS` requests at a time."""
    group: list[list[int]] = []
    run: list[int] = items[:1]
    for before, i in pairwise(items):
        gap = offsets[i] - offsets[before] - sizes[before]
        length = offsets[i] + sizes[i] - offsets[run[0]]
        if shards[i] == shards[before] and gap <= MAX_GAP_BYTES and length <= MAX_RANGE_BYTES:
            run.append(i)
            continue
        group.append(run)
        run = [i]
        if len(group) == REQUESTS:
            yield group
            group = []
    if run:
        yield [*group, run]


def _pread(fd: int, offset: int, num_bytes: int) -> bytes:
    data = os.pread(fd, num_bytes, offset)
    while 0 < len(data) < num_bytes:  # network file systems may give less than asked for
        more = os.pread(fd, num_bytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
