"""The catalog as the later stages see it: columns by row, mapped from one file, and the shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.schema import Array
from rayclean.shards.access import PixelReader, PixelSettings
from rayclean.shards.node_cache import NodeCache, open_cache
from rayclean.shards.urls import ShardIdentity
from rayclean.storage.checksums import CheckedArrays
from rayclean.storage.contents import KeptArrays, map_arrays, read_json, read_table
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

COLUMNS_FILE = "columns.safetensors"
SHARDS_FILE = "shards.parquet"
SOURCES_FILE = "sources.parquet"  # where the shards lie now, and their features
SUMMARY_FILE = "summary.json"
CONTENT = "content"  # of a summary: the digest of the rows; not in catalogs of earlier releases
STRAYS = "strays"  # of a summary: files of no sample, by kind
PIXELS = "pixels"


def counted(counts: Mapping[str, int]) -> str:
    """`bad_label 3, link 1`, as they are printed; `none` of nothing."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


@dataclass(frozen=True)
class Catalog:
    """All rows of a run. Picklable and cheap: columns are mapped where they are used.

    Attributes:
        store: the run's files.
        folder: `catalog-<mark>`.
        mark: fingerprint of what it was read from: the shards' identity, and how a sample is read.
    """

    store: Store
    folder: str
    mark: str

    def __getstate__(self) -> dict[str, object]:
        return {"store": self.store, "folder": self.folder, "mark": self.mark}

    @cached_property
    def _columns(self) -> CheckedArrays | KeptArrays:
        return map_arrays(self.store, f"{self.folder}/{COLUMNS_FILE}")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts: rows, samples, quarantined by reason, truncated shards, empty shards."""
        result: dict[str, Any] = read_json(self.store, f"{self.folder}/{SUMMARY_FILE}")
        return result

    @property
    def fingerprint(self) -> str:
        """Of the rows, once they are there.

        What is computed of them is named by it, and so stays where shards are copied, touched or packed anew.
        """
        found: str = self.summary.get(CONTENT, self.mark)
        return found

    @cached_property
    def shards(self) -> pa.Table:
        """url, name, size, tag, samples, rows, quarantined, truncated, first_row of each shard.

        URLs are those of the last start: shards may have been moved since they were read.
        """
        table = read_table(self.store, f"{self.folder}/{SHARDS_FILE}")
        sources = read_table(self.store, f"{self.folder}/{SOURCES_FILE}")
        for name in {"url", "features"}.intersection(sources.column_names):
            table = table.set_column(table.column_names.index(name), name, sources[name])
        return table

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
        return len(self.label)

    @cached_property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_counts)

    @property
    def label(self) -> Array:
        """Given labels, (N,) int32."""
        return self._columns["label"]

    @cached_property
    def class_counts(self) -> Array:
        """Rows of each given label, (K,) int64."""
        return self._columns["class_counts"]

    @property
    def by_label(self) -> Array:
        """Rows ordered by (label, row), (N,) int64."""
        return self._columns["by_label"]

    @property
    def digest(self) -> Array:
        """Digests, (N, 2) uint64; equal means equal pixels, or equal features: see `digests_of`."""
        return self._columns["digest"]

    @property
    def digests_of(self) -> str:
        """What digests are of, and so what copies share: `pixels`, or `features` where no image was looked at."""
        found: str = self.summary.get("digests", PIXELS)
        return found

    @property
    def pixel_digests(self) -> CheckedArrays | KeptArrays | None:
        """Columns with `digest` of the pixels; None where digests are of something else."""
        return self._columns if self.digests_of == PIXELS else None

    @property
    def twins(self) -> Array:
        """(N, 1 or 2): where it is equal, rows are no neighbours: copies, or frames of one clip.

        With features whatever their labels, since what near rows say must not have seen the row's own label; without,
        rows of one label.
        """
        if self.has_features:
            return self.group[:, None]
        return self.clip_id[:, None] if self.has_clips else self.digest

    @property
    def has_features(self) -> bool:
        """Whether rows have features of a network that is there."""
        return "feature" in self._columns

    @property
    def group(self) -> Array:
        """(N,) int64; rows of one group are no evidence for each other, whatever their labels; with features alone."""
        return self._columns["group"]

    def places(self, rows: Array) -> tuple[Array, Array]:
        """Shards of rows (R,) and where their features lie in the shards' files, (R,) int32 each."""
        columns = self._columns
        return columns.take("shard", rows), columns.take("feature", rows)

    @property
    def duplicate_of(self) -> Array:
        """The smallest row with an equal digest, (N,) int64, `NO_ROW` where there is none but itself."""
        return self._columns["duplicate_of"]

    @property
    def draw_id(self) -> Array:
        """The sample's identity for seeded draws, (N,) uint64; the same in any sharding."""
        return self._columns["draw_id"]

    @property
    def has_clips(self) -> bool:
        """Whether rows are frames of clips (`data.group`)."""
        return "clip" in self._columns

    @property
    def clip_id(self) -> Array:
        """What a clip's frames share for seeded draws, (N,) uint64; the draw ids where images stand alone."""
        return self._columns["clip_id" if self.has_clips else "draw_id"]

    @property
    def clip(self) -> Array:
        """Number of each row's clip, (N,) int64, in order of the clips' first rows."""
        return self._columns["clip"]

    @property
    def clip_starts(self) -> Array:
        """Where each clip begins in the rows ordered by clip, (C+1,) int64."""
        return self._columns["clip_starts"]

    def first_of_clip(self, start: int, stop: int) -> Array:
        """First rows of clips [start, stop), ascending."""
        firsts: Array = self._columns["by_clip"][self.clip_starts[start:stop]]
        return firsts

    def is_first_of_clip(self, start: int, stop: int) -> Array:
        """Whether rows [start, stop) are the first of their clips, (stop - start,) bool."""
        firsts = self._columns["by_clip"][self.clip_starts[self.clip[start:stop]]]
        return np.asarray(firsts == np.arange(start, stop))

    def frames_of(self, clips: Array) -> tuple[Array, Array]:
        """All rows of some clips, and for each the position of its clip among these.

        Args:
            clips: (C,) numbers, ascending.
        """
        starts, stops = self.clip_starts[clips], self.clip_starts[clips + 1]
        by_clip = self._columns["by_clip"]
        pieces = [by_clip[start:stop] for start, stop in zip(starts, stops, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *pieces]), np.repeat(np.arange(len(clips)), stops - starts)

    def label_range(self, label: int) -> tuple[int, int]:
        """Where a label's rows lie in `by_label`."""
        starts = np.concatenate([[0], np.cumsum(self.class_counts)])
        return int(starts[label]), int(starts[label + 1])

    def identities(self) -> list[ShardIdentity]:
        """What each shard was when the catalog was made."""
        columns = self.shards.select(["url", "size", "tag"]).to_pylist()
        return [ShardIdentity(row["url"], row["size"], row["tag"]) for row in columns]

    def pixels(self, size: int, max_pixels: float, cache_bytes: int = 0) -> RowPixels:
        """Random access to the rows' images as (size, size, 3) uint8; the node keeps up to `cache_bytes` of them."""
        if isinstance(self.store, MemoryStore):
            return ArrayPixels(self, self.store.images[self.shards["url"][0].as_py()])
        identities = self.identities()
        reader = PixelReader([identity.url for identity in identities], size, max_pixels, identities)
        name = f"{self.fingerprint}-{size}-{cache_bytes}"
        return RowPixels(self, reader, open_cache(name, self.num_rows, size, cache_bytes))

    @cached_property
    def _shared_pixels(self) -> dict[tuple[int, PixelSettings], RowPixels]:
        return {}

    def shared_pixels(self, size: int, settings: PixelSettings) -> RowPixels:
        """As `pixels`, but one for all jobs of a worker. Not for threads."""
        key = size, settings
        if key not in self._shared_pixels:
            self._shared_pixels[key] = self.pixels(size, settings.max_pixels, settings.node_cache_bytes)
        return self._shared_pixels[key]

    def rows_of_shard(self, shard: int) -> pa.Table:
        """The row table of one shard, in row order."""
        return read_table(self.store, f"{self.folder}/rows/{block_name(shard)}.parquet")

    def truth_of_shard(self, shard: int) -> pa.Table | None:
        """The truth of one shard's rows (index_in_shard, label), None where the run has none. Benchmarks only."""
        return self._of_shard("truth", shard)

    def verified_of_shard(self, shard: int) -> pa.Table | None:
        """The same of labels that people have verified; None where they are the given ones."""
        return self._of_shard("verified", shard)

    def _of_shard(self, kind: str, shard: int) -> pa.Table | None:
        """A table beside the rows of a shard; where one shard has a kind, all have, so that a lost one is missed."""
        if kind not in self._kinds:
            return None
        return read_table(self.store, f"{self.folder}/{kind}/{block_name(shard)}.parquet")

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(self.store.list(self.folder))

    def shards_of(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """The shards that rows [start, stop) lie in: (shard, first, last + 1) as indexes in the shard."""
        first = self.shards["first_row"].to_numpy()
        counts = self.shards["rows"].to_numpy()
        result = []
        for shard in range(int(np.searchsorted(first, start, side="right")) - 1, len(first)):
            a, b = max(start - first[shard], 0), min(stop - first[shard], counts[shard])
            if first[shard] >= stop:
                break
            if a < b:
                result.append((max(shard, 0), int(a), int(b)))
        return result


class RowPixels:
    """Reads images of rows by the catalog's offsets, where the node's cache does not have them.

    Attributes:
        reader: counts what was fetched and decoded.
    """

    def __init__(self, catalog: Catalog, reader: PixelReader, cache: NodeCache) -> None:
        self.catalog, self.reader, self.cache = catalog, reader, cache

    def read(self, rows: Array) -> Array:
        """Decoded images of `rows`.

        Args:
            rows: (R,) int64.

        Returns:
            (R, size, size, 3) uint8.

        Raises:
            ShardChangedError: an image is not the one that the catalog saw.
        """
        size = self.reader.size
        images = np.empty((len(rows), size, size, 3), np.uint8)
        missing = []
        for i, row in enumerate(rows.tolist()):
            image = self.cache.get(row)
            if image is None:
                missing.append(i)
            else:
                images[i] = image
        for i, image in self._decode(rows[missing]):
            images[missing[i]] = image
            self.cache.put(int(rows[missing[i]]), image)
        return images

    def _decode(self, rows: Array) -> Iterator[tuple[int, Array]]:
        columns, seen = self.catalog._columns, self.catalog.pixel_digests
        shards, offsets, sizes = (columns.take(name, rows) for name in ("shard", "offset", "size"))
        return self.reader.read(shards, offsets, sizes, None if seen is None else seen.take("digest", rows))


class ArrayPixels(RowPixels):
    """Images of rows that are in memory, all of one shard, whose offsets count images.

    Args:
        catalog: the rows.
        images: (N, size, size, 3) uint8.
    """

    def __init__(self, catalog: Catalog, images: Array) -> None:
        self.offsets, self.images = catalog._columns["offset"], images

    def read(self, rows: Array) -> Array:
        """(R, size, size, 3) uint8 images of `rows` (R,) int64."""
        found: Array = self.images[self.offsets[rows]]
        return found

    def all(self) -> Array:
        """Those of all rows; the very same array where none is left out."""
        return self.images if len(self.offsets) == len(self.images) else self.images[self.offsets]
