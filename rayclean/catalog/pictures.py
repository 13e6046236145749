"""Pictures of rows for people: whole, small, read from the shards by the catalog's offsets."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from rayclean.catalog.table import Catalog
from rayclean.errors import InputError
from rayclean.schema import Array
from rayclean.shards.access import PixelReader

SIDE = 96
# A thread holds one whole picture while it is scaled down: 150 MB of the largest that data.max_pixels allows.
THREADS = 8
READ_AT_ONCE = 64  # files, whose bytes are held before they are decoded


def thumbnails(catalog: Catalog, rows: Array, max_pixels: float, side: int = SIDE) -> Iterator[tuple[int, bytes]]:
    """The pictures of some rows as PNG files; see `pictures`.

    Yields:
        The row and its PNG.

    Raises:
        ShardChangedError: a shard is gone, or is not the one of the catalog.
        InputError: a picture cannot be decoded.
    """
    for row, picture in pictures(catalog, rows, max_pixels, side):
        if isinstance(picture, InputError):
            raise picture
        yield row, encoded(picture, "PNG")


def pictures(
    catalog: Catalog, rows: Array, max_pixels: float, side: int = SIDE
) -> Iterator[tuple[int, Image.Image | InputError]]:
    """The pictures of some rows, whole, scaled to fit a square and never enlarged.

    Args:
        catalog: of the run.
        rows: (R,) int64, in any order; a row that is there twice is read once.
        max_pixels: `data.max_pixels`.
        side: of the square, pixels.

    Yields:
        The row and its picture, RGB, in order of their places in the shards; or why it cannot be decoded, which no
        catalog has found that took features and did not look at images.

    Raises:
        ShardChangedError: a shard is gone, or is not the one of the catalog.
    """
    wanted = np.unique(np.asarray(rows, np.int64))
    reader = _WholeReader(catalog, max_pixels)
    try:
        for place, picture in reader.scaled(wanted, side):
            yield int(wanted[place]), picture
    finally:
        reader.close()


class _WholeReader(PixelReader):
    """Reads whole pictures of a catalog's rows, where `PixelReader.read` gives the network's crops.

    That a picture is the one that was scored shows in the digest of its pixels, where the catalog has it, so that all
    of it is decoded.
    """

    def __init__(self, catalog: Catalog, max_pixels: float) -> None:
        identities = catalog.identities()
        super().__init__([identity.url for identity in identities], 1, max_pixels, identities)
        self._columns, self._seen = catalog._columns, catalog.pixel_digests

    def scaled(self, rows: Array, side: int) -> Iterator[tuple[int, Image.Image | InputError]]:
        """The position in `rows`, and the picture, or what is wrong with it; several are decoded at once."""
        shards, offsets, sizes = (self._columns[name][rows] for name in ("shard", "offset", "size"))
        digests = None if self._seen is None else self._seen["digest"][rows]

        def decode(item: tuple[int, bytes]) -> tuple[int, Image.Image | InputError]:
            i, data = item
            digest = None if digests is None else digests[i]
            try:
                picture = Image.fromarray(self._decode(int(shards[i]), int(offsets[i]), data, digest))
            except InputError as error:
                return i, error
            picture.thumbnail((side, side), Image.Resampling.BICUBIC)
            return i, picture

        files = self._fetch(np.lexsort((offsets, shards)), shards, offsets, sizes)
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "pictures") as threads:
            while some := list(islice(files, READ_AT_ONCE)):
                yield from threads.map(decode, some)


def encoded(picture: Image.Image, kind: str) -> bytes:
    """A picture as a file, `PNG` or `JPEG`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return buffer.getvalue()
