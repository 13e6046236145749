"""Training batches from shards that WebDataset streams.

Where the decoded set fits `data.cache_bytes`, it is streamed once, kept and permuted fully; else each epoch
streams its shards through a shuffle buffer. Either way an epoch is a pure function of (seed, epoch, ranks).
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from rayclean.arrays import Array
from rayclean.catalog.table import Catalog
from rayclean.errors import UnitError
from rayclean.shards.decode import decode_image, fit_image
from rayclean.shards.stream import stream_shard
from rayclean.shards.tar import split_name
from rayclean.train.batches import Batch, cached_batches
from rayclean.train.plan import Part, batch_bounds, epoch_seed, plan_stream

PREFETCHED_BATCHES = 4


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


def stream_rows(catalog: Catalog, shard: int, settings: FeedSettings) -> Iterator[tuple[int, Array]]:
    """Streams a shard: (row, image) of each sample that the catalog holds, in row order.

    Raises:
        UnitError: the shard holds fewer samples than the catalog says.
    """
    table = catalog.rows_of_shard(shard)
    wanted = dict(zip(table["sample"].to_pylist(), table["member"].to_pylist(), strict=True))
    extensions = {name[1] for member in wanted.values() if (name := split_name(member))}
    entry = catalog.shards.slice(shard, 1).to_pylist()[0]
    row = entry["first_row"]
    for ordinal, _, members in stream_shard(entry["url"], extensions):
        member = wanted.get(ordinal)
        if member is None:
            continue
        name = split_name(member)
        pixels = decode_image(members[name[1]] if name else b"", settings.max_pixels)
        yield row, fit_image(pixels, settings.size)
        row += 1
    if row != entry["first_row"] + entry["rows"]:
        raise UnitError(
            f"{entry['url']}: expected {entry['rows']} samples of the catalog, found "
            f"{row - entry['first_row']}; the shard changed, run again"
        )


class Feed:
    """Batches of one rank, epoch by epoch."""

    def __init__(self, catalog: Catalog, settings: FeedSettings, rank: int, ranks: int) -> None:
        self.catalog, self.settings, self.rank, self.ranks = catalog, settings, rank, ranks
        self.pixels = catalog.pixels(settings.size, settings.max_pixels, settings.node_cache_bytes)
        self.cache: Array | None = None
        if catalog.num_rows * settings.size**2 * 3 <= settings.cache_bytes:
            self.cache = self._load_all()

    def _load_all(self) -> Array:
        images = np.empty((self.catalog.num_rows, self.settings.size, self.settings.size, 3), np.uint8)
        for shard in range(self.catalog.shards.num_rows):
            for row, image in stream_rows(self.catalog, shard, self.settings):
                images[row] = image
        return images

    def images(self, start: int, stop: int) -> Array:
        """Images of rows [start, stop), for the evaluation pass."""
        if self.cache is not None:
            return self.cache[start:stop]
        return self.pixels.read(np.arange(start, stop))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The rank's batches of an epoch; every rank gets equally many."""
        if self.cache is not None:
            settings = self.settings
            return cached_batches(
                self.cache, self.catalog.label, settings.seed, epoch, settings.batch_size, self.rank, self.ranks
            )
        return _prefetch(self._streamed_batches(epoch))

    def _streamed_batches(self, epoch: int) -> Iterator[Batch]:
        settings = self.settings
        shard_rows = self.catalog.shards["rows"].to_numpy()
        plan = plan_stream(settings.seed, epoch, self.ranks, shard_rows, settings.batch_size)[self.rank]
        rng = random.Random(epoch_seed(settings.seed, epoch, self.rank, "buffer"))
        stream = shuffled(self._read(plan.parts), settings.shuffle_rows, rng)
        if plan.repeated:
            stream = _repeat_first(stream, plan.repeated)
        for start, stop in batch_bounds(plan.num_rows, plan.steps):
            rows, images = zip(*islice(stream, stop - start), strict=True)
            labels = self.catalog.label[list(rows)].astype(np.int64)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(labels)

    def _read(self, parts: tuple[Part, ...]) -> Iterator[tuple[int, Array]]:
        """Whole shards by WebDataset; cut ones by offset, which needs no read from the start."""
        first_row = self.catalog.shards["first_row"].to_numpy()
        shard_rows = self.catalog.shards["rows"].to_numpy()
        for part in parts:
            if part.stop - part.start == shard_rows[part.shard]:
                yield from stream_rows(self.catalog, part.shard, self.settings)
                continue
            for row in range(first_row[part.shard] + part.start, first_row[part.shard] + part.stop):
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


def _prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Reads ahead in a thread: PIL decodes without the interpreter's lock while the network computes."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(PREFETCHED_BATCHES)

    def fill() -> None:
        try:
            for batch in batches:
                ready.put(batch)
            ready.put(None)
        except BaseException as e:  # handed to the reader, which raises it
            ready.put(e)

    threading.Thread(target=fill, daemon=True).start()
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
