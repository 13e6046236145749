"""The report's folder: its pictures and pages, in the run or wherever it is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from rayclean.catalog.pictures import encoded, pictures
from rayclean.catalog.table import Catalog
from rayclean.errors import ConfigError, InputError, ShardChangedError
from rayclean.report.page_html import FILES, INDEX
from rayclean.schema import Array
from rayclean.storage.contents import encode
from rayclean.storage.store import Store

MARK = "rayclean-report.json"
PICTURES, CLASSES = "pictures", "classes"
OURS = (INDEX, *FILES, "samples.html", "duplicates.html", PICTURES, CLASSES)
TINY = 48  # pixels; a picture whose longer side is no more is kept exactly, and drawn with its pixels
WRITERS = 16
WRITTEN_AT_ONCE = 256


@dataclass
class Pictures:
    """The pictures of a report.

    Attributes:
        names: files below `pictures/`, by row.
        tiny: rows whose pictures are `TINY`.
        failed: rows that could not be read.
        reason: why, of the first of them.
    """

    names: dict[int, str] = field(default_factory=dict)
    tiny: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    reason: str = ""


def open_folder(place: str) -> Store:
    """Empties the folder of an earlier report and marks it as a report's.

    Args:
        place: a local folder, made where missing, or an fsspec URL.

    Raises:
        InputError: it holds something else.
        ConfigError: it cannot be written.
    """
    store = Store(place)
    found = store.list("")
    if found and MARK not in found:
        raise InputError(f"{store.root} is not empty and holds no report (no {MARK}); name a new folder, or empty it")
    try:
        store.publish(MARK, encode(MARK, {"made_by": "rayclean report"}, "{}"))
        for name in OURS:
            store.remove(name)
    except Exception as error:  # each store has its own exceptions, few of them OSError
        cause = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise ConfigError(f"{store.root}: no report can be written there: {cause}; name another folder") from error
    return store


def write_pages(store: Store, pages: Iterable[tuple[str, bytes]]) -> str:
    """Publishes pages in their order; returns the path of the last one, the overview."""
    name = ""
    for name, content in pages:
        store.publish(name, content)
    return f"{store.root}/{name}"


def write_pictures(store: Store, catalog: Catalog, rows: Array, max_pixels: float) -> Pictures:
    """Publishes a small picture of each row, several at a time.

    What cannot be read is noted and left out: a report is of use without its pictures, where shards have moved.

    Args:
        store: the report's folder.
        catalog: of the rows.
        rows: (R,) int64.
        max_pixels: `data.max_pixels`.
    """
    found = Pictures()
    read = _readable(catalog, np.unique(rows), max_pixels, found)
    with ThreadPoolExecutor(WRITERS, "report") as threads:
        while some := list(islice(read, WRITTEN_AT_ONCE)):
            list(threads.map(lambda each: store.publish(f"{PICTURES}/{each[0]}", each[1]), some))
    return found


def _readable(catalog: Catalog, rows: Array, max_pixels: float, found: Pictures) -> Iterator[tuple[str, bytes]]:
    """Files of all rows that can be read: name and content. Where a shard fails, the rest goes shard by shard."""
    left = [rows] if len(rows) else []
    while left:
        some = left.pop()
        done: set[int] = set()
        try:
            for row, picture in pictures(catalog, some, max_pixels):
                done.add(row)
                if isinstance(picture, InputError):
                    found.failed.add(row)
                    found.reason = found.reason or str(picture)
                    continue
                is_tiny = max(picture.size) <= TINY
                name = f"{row}.{'png' if is_tiny else 'jpg'}"
                found.names[row] = name
                if is_tiny:
                    found.tiny.add(row)
                yield name, encoded(picture, "PNG" if is_tiny else "JPEG")
        except (ShardChangedError, OSError) as error:
            rest = np.array([row for row in some.tolist() if row not in done], np.int64)
            shards = _shards_of(catalog, rest)
            if len(np.unique(shards)) > 1:
                left += [rest[shards == shard] for shard in np.unique(shards)]
            else:
                found.failed.update(rest.tolist())
                found.reason = found.reason or str(error)


def _shards_of(catalog: Catalog, rows: Array) -> Array:
    """The shard of each row."""
    return np.searchsorted(catalog.shards["first_row"].to_numpy(), rows, side="right") - 1
