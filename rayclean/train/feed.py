"""Training batches from shards that WebDataset streams.

Where the decoded set fits `data.cache_bytes`, it is streamed once, kept and permuted fully, as is one that is in memory
anyway; else each epoch streams its shards through a shuffle buffer. Either way an epoch is a pure function of (seed,
epoch, ranks).
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rayclean.catalog.table import ArrayPixels, Catalog
from rayclean.errors import UnitError
from rayclean.schema import Array
from rayclean.shards.decode import decode_image, fit_image
from rayclean.shards.stream import stream_shard
from rayclean.train.batches import Batch, Lesson, cached_rows
from rayclean.train.inputs import Reader
from rayclean.train.plan import Part, batch_bounds, epoch_seed, plan_stream

PREFETCHED_BATCHES = 4
POLL_S = 0.1  # in which a thread that reads ahead notices that nobody wants more
FEW = 0.25  # share of a shard's rows below which they are read by offset instead of streaming all
RowBatch = tuple[Array, Array]  # (B,) rows and their images, (B, size, size, 3) uint8


@dataclass(frozen=True)
class FeedSettings:
    """How images are read."""

    size: int
    max_pixels: float
    cache_bytes: int
    shuffle_rows: int
    batch_size: int
    seed: int
    node_cache_bytes: int = 0

    def open(self, catalog: Catalog, rank: int, ranks: int, lesson: Lesson | None = None) -> Feed:
        """Batches of one rank."""
        return Feed(catalog, self, rank, ranks, lesson)


def stream_rows(
    catalog: Catalog, shard: int, settings: FeedSettings, chosen: Array | None = None
) -> Iterator[tuple[int, Array]]:
    """Streams a shard: (row, image) of each sample that the catalog holds, in row order.

    Args:
        catalog: the rows.
        shard: its number.
        settings: how images are read.
        chosen: (rows of the shard,) bool, which are decoded and given; None for all.

    Raises:
        UnitError: the shard holds fewer samples than the catalog says.
    """
    table = catalog.rows_of_shard(shard)
    entry = catalog.shards.slice(shard, 1).to_pylist()[0]
    is_chosen = np.ones(table.num_rows, bool) if chosen is None else chosen
    place = dict(zip(table["sample"].to_pylist(), range(table.num_rows), strict=True))
    offsets, sizes = (table[name].to_numpy()[is_chosen].tolist() for name in ("offset", "size"))
    asked = set(zip(offsets, sizes, strict=True))
    row = entry["first_row"]
    for ordinal, _, images in stream_shard(entry["url"], lambda member: (member.offset, member.size) in asked):
        index = place.get(ordinal)
        if index is None:
            continue
        if len(images) != is_chosen[index]:  # its image lies elsewhere now
            break
        for image in images.values():
            yield row, fit_image(decode_image(image, settings.max_pixels), settings.size)
        row += 1
    if row != entry["first_row"] + entry["rows"]:
        raise UnitError(
            f"{entry['url']}: expected {entry['rows']} samples of the catalog, found "
            f"{row - entry['first_row']}; the shard changed, run again"
        )


class Feed:
    """Batches of one rank, epoch by epoch.

    Args:
        catalog: the rows.
        settings: how images are read.
        rank: this process.
        ranks: how many there are.
        lesson: rows to train on, with their labels and weights; None for all rows and the given labels.
    """

    def __init__(
        self, catalog: Catalog, settings: FeedSettings, rank: int, ranks: int, lesson: Lesson | None = None
    ) -> None:
        self.catalog, self.settings, self.rank, self.ranks = catalog, settings, rank, ranks
        self.lesson = lesson or Lesson(catalog.label)
        self.rows = self.lesson.rows
        self.pixels = self._reader()
        self.cache = self._cached()

    def _reader(self) -> Reader:
        """What reads any rows."""
        settings = self.settings
        return self.catalog.pixels(settings.size, settings.max_pixels, settings.node_cache_bytes)

    def _cached(self) -> Array | None:
        """All images, where they are in memory or fit there."""
        if isinstance(self.pixels, ArrayPixels):
            return self.pixels.all()
        fits = self.catalog.num_rows * self.settings.size**2 * 3 <= self.settings.cache_bytes
        return self._load_all() if fits else None

    def _load_all(self) -> Array:
        images = np.empty((self.catalog.num_rows, self.settings.size, self.settings.size, 3), np.uint8)
        for shard in range(self.catalog.shards.num_rows):
            for row, image in stream_rows(self.catalog, shard, self.settings):
                images[row] = image
        return images

    def images(self, rows: Array) -> Array:
        """(R, size, size, 3) uint8 images of any rows, for the evaluation pass."""
        if self.cache is not None:
            return self.cache[rows]
        return self.pixels.read(rows)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The rank's batches of an epoch; every rank gets equally many."""
        for rows, images in self.row_batches(self.rows, self.settings.seed, epoch, self.settings.batch_size):
            yield self.lesson.batch(rows, images)

    def row_batches(self, rows: Array, seed: int, epoch: int, batch_size: int) -> Iterator[RowBatch]:
        """One pass of this rank over its share of some rows.

        Args:
            rows: (R,) distinct rows, ascending.
            seed: of the order; two passes of an epoch take two seeds.
            epoch: counted from 1.
            batch_size: at most so many per batch.
        """
        if self.cache is not None:
            cache = self.cache
            return ((some, cache[some]) for some in cached_rows(rows, seed, epoch, batch_size, self.rank, self.ranks))
        return _prefetch(self._streamed_batches(rows, seed, epoch, batch_size))

    def _streamed_batches(self, rows: Array, seed: int, epoch: int, batch_size: int) -> Iterator[RowBatch]:
        first_row = self.catalog.shards["first_row"].to_numpy()
        # Where each shard's rows begin and end among the chosen ones.
        edges = np.append(np.searchsorted(rows, first_row), len(rows))
        plan = plan_stream(seed, epoch, self.ranks, np.diff(edges), batch_size)[self.rank]
        rng = random.Random(epoch_seed(seed, epoch, self.rank, "buffer"))
        stream = shuffled(self._read(plan.parts, rows, edges), self.settings.shuffle_rows, rng)
        # All ranks take equally many steps: one that ended earlier would leave the others waiting for its gradients.
        if plan.repeated:
            stream = _repeat_first(stream, plan.repeated)
        for start, stop in batch_bounds(plan.num_rows, plan.steps):
            some, images = zip(*islice(stream, stop - start), strict=True)
            yield np.array(some), np.stack(images)

    def _read(self, parts: tuple[Part, ...], rows: Array, edges: Array) -> Iterator[tuple[int, Array]]:
        """Whole shards by WebDataset; cut ones, and few rows of a shard, by offset: no read from the start."""
        shards = self.catalog.shards
        for part in parts:
            mine = rows[edges[part.shard] + part.start : edges[part.shard] + part.stop]
            first, total = (shards[name][part.shard].as_py() for name in ("first_row", "rows"))
            is_whole = len(mine) == edges[part.shard + 1] - edges[part.shard]
            if is_whole and len(mine) >= FEW * total:
                chosen = np.zeros(total, bool)
                chosen[mine - first] = True
                yield from stream_rows(self.catalog, part.shard, self.settings, chosen)
                continue
            for row in mine.tolist():
                yield row, self.pixels.read(np.array([row]))[0]


def shuffled(items: Iterator[tuple[int, Array]], size: int, rng: random.Random) -> Iterator[tuple[int, Array]]:
    """Passes items through a buffer of `size` that gives them back in random order."""
    buffer: list[tuple[int, Array]] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        index = rng.randrange(size)
        buffer[index], item = item, buffer[index]
        yield item
    rng.shuffle(buffer)
    yield from buffer


def _repeat_first(items: Iterator[tuple[int, Array]], count: int) -> Iterator[tuple[int, Array]]:
    """Adds the first `count` items again at the end, in a circle where there are fewer."""
    first = list(islice(items, count))
    yield from first
    yield from items
    for i in range(count):
        yield first[i % len(first)]


def _prefetch(batches: Iterator[RowBatch]) -> Iterator[RowBatch]:
    """Reads ahead in a thread: PIL decodes without the interpreter's lock while the network computes.

    The thread ends with the pass, also where its reader leaves it early.
    """
    ready: queue.Queue[RowBatch | BaseException | None] = queue.Queue(PREFETCHED_BATCHES)
    left = threading.Event()

    def hand_over(item: RowBatch | BaseException | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=POLL_S)
                return

    def fill() -> None:
        try:
            for batch in batches:
                hand_over(batch)
                if left.is_set():
                    return
            hand_over(None)
        except BaseException as e:  # handed to the reader, which raises it
            hand_over(e)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
