"""All that a run knows of one sample: its row of the table, its neighbours, its truth, or why it is no row.

Tables are streamed with a filter, file by file; nothing of the size of the run is held.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from rayclean.catalog.table import SHARDS_FILE, Catalog
from rayclean.config import Config
from rayclean.errors import InputError, LostFile, RaycleanError
from rayclean.inspect.errors import shard_names, shards_with_quarantine
from rayclean.inspect.final_table import Facts, FinalTable, class_of, open_tables, stream
from rayclean.inspect.nearness import distances
from rayclean.run.run import Run
from rayclean.run.start import is_current, look
from rayclean.schema import NO_ROW
from rayclean.storage.published import find_published
from rayclean.storage.store import Store
from rayclean.storage.units import block_name

NEAR_KEYS = 5000  # that are looked at where a key is not found: the first ones, and as many that begin like it
SHOWN_SHARDS = 20
FILE = "__filename"  # a column that Arrow adds


def describe(config: Config, key: str, shard: str | None = None) -> Facts:
    """What `rayclean show` prints, as plain values; before the merge is done, what there is.

    Args:
        config: the run.
        key: of the sample.
        shard: as the table calls it; None where the key is in one shard only.

    Raises:
        InputError: no such sample, or several.
    """
    this = look(config, Store(config.run.dir))
    published, catalog = find_published(this.store), _known_rows(this)
    table = None if published is None else FinalTable.of(published)
    files = _files(catalog, "rows")
    found = table.places(key) if table else _with_key(catalog, files, ["index_in_shard"], key)
    places: dict[str, Any] = {line["shard"]: line.get("row") for line in found}
    aside = list(_put_aside(this, key))
    where = sorted({*places, *(each["shard"] for each in aside)})
    if not where:
        rows = table.rows if table else open_tables(this.store, files)
        raise InputError(f"{this.store.root} has no sample {key!r}{_near(rows, key)}")
    if shard is None and len(where) > 1:
        listed = ", ".join(where[:SHOWN_SHARDS]) + (", ..." if len(where) > SHOWN_SHARDS else "")
        raise InputError(f"{key!r} is in {len(where)} shards; choose one by --shard: {listed}")
    if shard is not None and shard not in where:
        raise InputError(f"{key!r} is not in shard {shard}, but in {', '.join(where[:SHOWN_SHARDS])}")
    chosen = where[0] if shard is None else shard
    facts: Facts = {"key": key, "shard": chosen, "aside": [each for each in aside if each["shard"] == chosen]}
    if chosen not in places:
        return facts
    if catalog.store.exists(f"{catalog.folder}/{SHARDS_FILE}"):
        facts["equal"] = catalog.digests_of
    facts |= _of_catalog(catalog, chosen, key, table.names if table else this.classes.names)
    if table is not None:
        age = {"merge": table.merge, "is_current": is_current(this, table.published)}
        facts |= table.facts(places[chosen]) | {"table": age}
        return _with_distances(this, facts) if age["is_current"] else facts
    if "row" in facts and catalog is this.catalog:
        facts |= _scores_so_far(this, facts["row"])
        return _with_distances(this, facts)
    return facts


def _with_distances(this: Run, facts: Facts) -> Facts:
    """Facts with the distance of each neighbour; None where the features are not there."""
    near = facts.get("neighbors", [])
    found = distances(this, facts["row"], [each["row"] for each in near])
    told = [each | {"distance": found and found[place]} for place, each in enumerate(near)]
    return facts | ({"neighbors": told} if near else {})


def _known_rows(this: Run) -> Catalog:
    """The rows that are scored; while these are not made, those of the shards that are read."""
    return this.catalog if this.store.exists(f"{this.catalog.folder}/{SHARDS_FILE}") else this.source


def _files(catalog: Catalog, kind: str) -> list[str]:
    return [f"{catalog.folder}/{kind}/{name}" for name in catalog.store.list(f"{catalog.folder}/{kind}")]


def _with_key(catalog: Catalog, files: Sequence[str], columns: Sequence[str], key: str) -> Iterator[Facts]:
    """Lines with a key from files of which each is of one shard, with its name."""
    tables, names = open_tables(catalog.store, files), shard_names(catalog)
    for line in [] if tables is None else stream(tables, [FILE, *columns], pc.field("key") == key):
        number = int(line.pop(FILE).rpartition("/")[2].partition(".")[0])
        yield {"shard": names[number], **line}


def _put_aside(this: Run, key: str) -> Iterator[Facts]:
    """Samples with a key that are no rows: in quarantine, or left out on purpose."""
    shards = map(block_name, shards_with_quarantine(this.source))
    quarantined = [f"{this.source.folder}/quarantine/{shard}.parquet" for shard in shards]
    yield from _with_key(this.source, quarantined, ["reason", "text"], key)
    for catalog in this.derived.values():
        yield from _with_key(catalog, _files(catalog, "left_out"), ["reason"], key)


def _of_catalog(catalog: Catalog, shard: str, key: str, names: Sequence[str]) -> Facts:
    """A sample's place in its shard, its label and its truth; nothing where the table is of other shards than these."""
    shards = shard_names(catalog)
    number = shards.index(shard) if shard in shards else len(shards)
    if not catalog.store.exists(f"{catalog.folder}/rows/{block_name(number)}.parquet"):
        return {}
    rows = catalog.rows_of_shard(number)
    found = rows.filter(pc.equal(rows["key"], key)).to_pylist()
    if not found:
        return {}
    place, label = found[0]["index_in_shard"], class_of(found[0]["label"], names)
    facts = {name: found[0][name] for name in ("member", "clip") if name in found[0]} | {"given_label": label}
    if catalog.store.exists(f"{catalog.folder}/{SHARDS_FILE}"):
        facts["row"] = catalog.shards["first_row"][number].as_py() + place
    truth = catalog.truth_of_shard(number)
    if truth is not None:
        known = truth.filter(pc.equal(truth["index_in_shard"], place))["label"].to_pylist()
        facts["truth"] = class_of(known[0] if known else None, names)
    return facts


def _who(catalog: Catalog, row: int, names: Sequence[str]) -> Facts:
    """A row of a finished catalog."""
    ((shard, place, _),) = catalog.shards_of(row, row + 1)
    line = catalog.rows_of_shard(shard).slice(place, 1).to_pylist()[0]
    label = class_of(line["label"], names)
    return {"row": row, "shard": catalog.shards["name"][shard].as_py(), "key": line["key"], "given_label": label}


def _scores_so_far(this: Run, row: int) -> Facts:
    """Scores and neighbours of a row, as far as there are any, before the table is."""
    names, twin = this.classes.names, int(this.catalog.duplicate_of[row])
    facts: Facts = {"duplicate_of": None if twin == NO_ROW else _who(this.catalog, twin, names)}
    try:
        files = this.score_files()
    except (OSError, RaycleanError):  # not trained yet
        return facts
    block, place = divmod(row, files.block_rows)

    scores: dict[str, float] = {}
    for reader in files.readers:
        with suppress(LostFile):  # it is not there yet
            scores |= {name: float(values[place]) for name, values in reader.read(block).scores.items()}
    with suppress(LostFile):
        near = files.neighbors(block)[place].tolist()
        facts["neighbors"] = [_who(this.catalog, each, names) for each in near if each != NO_ROW]
    wanted = {name: scores[name] for name in files.names if name in scores}
    facts["scores"] = {name: {"value": None if math.isnan(value) else value} for name, value in wanted.items()}
    return facts


def _near(rows: ds.Dataset | None, key: str) -> str:
    """Keys that look alike, for the error: rather those that begin alike."""
    if rows is None:
        return ": no shard is read yet"
    for only in (pc.starts_with(pc.field("key"), key[: math.ceil(len(key) / 2)]), None):
        keys = rows.scanner(columns=["key"], filter=only).head(NEAR_KEYS)["key"].to_pylist()
        if found := difflib.get_close_matches(key, dict.fromkeys(keys)):
            return f"; did you mean {', '.join(map(repr, found))}?"
    return "; see the column key of the table"
