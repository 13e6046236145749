"""Doubtful rows with their picture files, for tools in which people look at them: the most doubtful first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rayclean.catalog.table import PIXELS
from rayclean.errors import ShardChangedError
from rayclean.export.choose import COLUMNS, Decision, Lines, Reason, reasons_of
from rayclean.export.croissant import picture_records, table_records
from rayclean.export.files import FileFacts, publish_file
from rayclean.export.lists import IDENTITY, SCORE, field
from rayclean.export.rows import Chosen
from rayclean.export.work import Made, Work
from rayclean.schema import NONE_NAME, NONE_OF_CLASSES, Array
from rayclean.shards.access import PixelReader
from rayclean.shards.decode import BadSample, decode_image
from rayclean.shards.tar import split_name
from rayclean.storage.draws import pixel_digest

PICTURE_LIST = "metadata.jsonl"  # so called, `datasets` reads it with the pictures beside it
LIST_SCHEMA = pa.schema(
    [
        field("file_name", pa.string(), "the picture, in the same folder"),
        *IDENTITY,
        field("given_label", pa.string(), "the label that the run was given"),
        SCORE,
        field("predicted_label", pa.string(), f"the most likely class; '{NONE_NAME}' where it is none of them"),
        field("predicted_score", pa.float32(), "probability of the predicted label"),
        field("issue_kind", pa.string(), "what seems to be wrong; null where nothing is flagged"),
        field("verified_label", pa.string(), "what people say; null where nobody has looked"),
    ]
)
_SUFFIXES = {"png": "png", "jpg": "jpg", "jpeg": "jpg", "webp": "webp"}


class Doubtful(NamedTuple):
    """Rows to look at, the least likely right first.

    Attributes:
        rows: (R,) int64.
        total: how many there are in all.
        tallies: rows of each reason, of the whole table.
    """

    rows: Array
    total: int
    tallies: Array


def find_doubtful(chosen: Chosen, limit: int) -> Doubtful:
    """The rows that go, and, but with `removed`, those with a new label; by `label_score`, then by row.

    No more than `limit` rows and those of a batch are held.
    """
    found, scores, total = np.empty(0, np.int64), np.empty(0, np.float32), 0
    tallies = np.zeros(len(Reason), np.int64)
    for batch in chosen.table.batches(COLUMNS):
        lines = Lines.of(batch)
        decision = chosen.rule.decide(lines)
        tallies += decision.tally()
        here = _is_doubtful(lines, decision, chosen.removed)
        total += int(here.sum())
        found, scores = np.append(found, lines.row[here]), np.append(scores, lines.score[here])
        first = np.lexsort((found, scores))[:limit]
        found, scores = found[first], scores[first]
    return Doubtful(found, total, tallies)


def _is_doubtful(lines: Lines, decision: Decision, only_removed: bool) -> Array:
    return ~decision.kept if only_removed else ~decision.kept | (decision.label != lines.given)


def made_of(work: Work, found: Doubtful, files: list[FileFacts], folder: str, shown: Shown) -> Made:
    """What is said of files that show doubtful rows, with pictures in a folder."""
    made = Made(len(found.rows), reasons_of(found.tallies), [*files, shown.listed], columns=LIST_SCHEMA)
    made.facts = {"doubtful": found.total}
    made.data_files = f"{folder}/*"
    made.records = [table_records(shown.listed.name, LIST_SCHEMA)]
    if shown.suffixes:
        made.records.append(picture_records("pictures", [f"{folder}/*.{suffix}" for suffix in shown.suffixes]))
    what = "that go" if work.options.removed else "that go or have a new label"
    made.notes.append(
        f"{len(found.rows):,} of {found.total:,} rows {what}, those first whose given label is least likely right; "
        f"their pictures are in `{folder}/`, as they lie in the shards, with what is said of them in `{PICTURE_LIST}`, "
        "which `datasets.load_dataset` reads with the pictures."
    )
    return made


class Shown(NamedTuple):
    """What was written of doubtful rows.

    Attributes:
        entries: one per row, in their order.
        listed: the list beside the pictures.
        suffixes: of the pictures, ascending.
    """

    entries: list[dict[str, Any]]
    listed: FileFacts
    suffixes: list[str]


def show(work: Work, found: Doubtful, folder: str, entry: Callable[[View], dict[str, Any]]) -> Shown:
    """Publishes the pictures of doubtful rows and the list of them.

    Args:
        work: which run, and where the files go.
        found: the rows.
        folder: of the pictures.
        entry: what a tool is told of a row.

    Raises:
        ShardChangedError: a picture is not the one that the catalog saw.
    """
    told: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    for view in views_of(work.chosen, found.rows, work.data.max_pixels):
        work.out.publish(f"{folder}/{view.file}", view.image)
        told[view.line["row"]] = entry(view), listed(view, work.names)
    ordered = [told[row] for row in found.rows.tolist()]  # they were read in the order of the shards
    lines = "".join(json.dumps(line) + "\n" for _, line in ordered)
    facts = publish_file(work.out, f"{folder}/{PICTURE_LIST}", lines.encode())
    suffixes = {line["file_name"].rpartition(".")[2] for _, line in ordered}
    return Shown([each for each, _ in ordered], facts, sorted(suffixes))


def listed(view: View, names: Sequence[str]) -> dict[str, Any]:
    """A line of the list of pictures: `LIST_SCHEMA`, labels by name.

    Args:
        view: the row.
        names: of the classes, by label.
    """
    made: dict[str, Any] = {"file_name": view.file}
    made |= {name: name_of(view.line[name], names) for name in ("given_label", "predicted_label", "verified_label")}
    return {name: made[name] if name in made else view.line[name] for name in LIST_SCHEMA.names}


def name_of(label: int | None, names: Sequence[str]) -> str | None:
    """A label for people."""
    return None if label is None else NONE_NAME if label == NONE_OF_CLASSES else names[label]


class View(NamedTuple):
    """A row to look at.

    Attributes:
        line: all its columns.
        file: base name of its picture, made from the row, since a key may be anything.
        image: the picture's bytes, as they lie in the shard.
    """

    line: dict[str, Any]
    file: str
    image: bytes


def views_of(chosen: Chosen, rows: Array, max_pixels: float) -> Iterator[View]:
    """The rows with their pictures, in order of the rows; each shard is opened once.

    Args:
        chosen: of which run.
        rows: (R,) distinct.
        max_pixels: see `decode_image`.

    Raises:
        ShardChangedError: a picture is not the one that the catalog saw.
    """
    if not len(rows):
        return
    catalog = chosen.catalog
    identities = catalog.identities()
    reader = PixelReader([identity.url for identity in identities], 1, max_pixels, identities)
    table = chosen.table.take(rows, chosen.table.schema.names)
    ordered = np.sort(rows)
    firsts = catalog.shards["first_row"].to_numpy()
    shards = np.searchsorted(firsts + catalog.shards["rows"].to_numpy(), ordered, side="right")
    try:
        for shard in np.unique(shards):
            here = shards == shard
            places = catalog.rows_of_shard(int(shard)).take(pa.array(ordered[here] - firsts[shard])).to_pylist()
            for line, place in zip(table.filter(pa.array(here)).to_pylist(), places, strict=True):
                digest = place["digest"] if catalog.digests_of == PIXELS else None
                yield _view(reader, int(shard), line, place, max_pixels, digest)
    finally:
        reader.close()


def _is_same(data: bytes, digest: bytes | None, max_pixels: float) -> bool:
    if digest is None:
        return True
    try:
        return pixel_digest(decode_image(data, max_pixels)) == digest
    except BadSample:
        return False


def _view(
    reader: PixelReader,
    shard: int,
    line: dict[str, Any],
    place: dict[str, Any],
    max_pixels: float,
    digest: bytes | None,
) -> View:
    """`digest`: of the picture's pixels; None where the catalog did not look at it."""
    data = reader.read_bytes(shard, place["offset"], place["size"])
    if not _is_same(data, digest, max_pixels) or line["key"] != place["key"]:
        raise ShardChangedError(
            f"{reader.urls[shard]} changed since it was cataloged: another image at byte {place['offset']}; "
            "run again to catalog the new content"
        )
    name = split_name(place["member"])
    suffix = _SUFFIXES.get(name[1].rpartition(".")[2], "png") if name else "png"
    return View(line, f"{line['row']:09d}.{suffix}", data)
