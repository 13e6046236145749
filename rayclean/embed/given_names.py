"""Where the features of a sample lie: by its key, or by shard and key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.errors import ConfigError, InputError
from rayclean.schema import NO_ROW, Array
from rayclean.storage.given_tables import KEY, SHARD


class Names:
    """Finds rows by name: sorted hashes of 8 bytes, and the names as Arrow holds them, for any number of rows.

    Args:
        tables: `key`, and `shard` in all or in none of them; rows are counted through.
        source: what they are called in errors.

    Raises:
        InputError: a name is there twice.
        ConfigError: some tables have `shard` and others not.
    """

    def __init__(self, tables: Sequence[pa.Table], source: str) -> None:
        with_shard = [SHARD in table.column_names for table in tables]
        if any(with_shard) and not all(with_shard):
            raise ConfigError(f"{source}: some files have a column {SHARD} and some not; give it to all or to none")
        self._has_shard = all(with_shard)
        self._names = pa.concat_tables([table.select(self._columns) for table in tables]).combine_chunks()
        hashes = self._hashes(self._names)
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes_in_order = hashes[self._rows]
        self._check_unique(source)

    @property
    def _columns(self) -> list[str]:
        return [KEY, SHARD] if self._has_shard else [KEY]

    def find(self, shard_name: str, keys: Sequence[str]) -> Array:
        """(n,) int64 rows of the keys of a shard, `NO_ROW` for those that have none."""
        columns = {KEY: pa.array(keys, pa.string()), SHARD: pa.array([shard_name] * len(keys), pa.string())}
        wanted = pa.table({name: columns[name] for name in self._columns})
        hashes = self._hashes(wanted)
        found = np.full(len(keys), NO_ROW, np.int64)
        first = np.searchsorted(self._hashes_in_order, hashes)
        open_places = np.flatnonzero(first < len(self._rows))
        while len(open_places):  # once more for each pair of names that share a hash
            at = first[open_places]
            same_hash = self._hashes_in_order[at] == hashes[open_places]
            open_places, at = open_places[same_hash], at[same_hash]
            rows = self._rows[at]
            equal = self._equal(self._names.take(rows), wanted.take(open_places))
            found[open_places[equal]] = rows[equal]
            open_places = open_places[~equal]
            first[open_places] += 1
            open_places = open_places[first[open_places] < len(self._rows)]
        return found

    def _check_unique(self, source: str) -> None:
        twins = np.flatnonzero(self._hashes_in_order[1:] == self._hashes_in_order[:-1])
        one, other = (self._names.take(self._rows[twins + step]) for step in (0, 1))
        if (equal := self._equal(one, other)).any():
            name = one.slice(int(np.argmax(equal)), 1).to_pylist()[0]
            said = ", ".join(f"{column} {value!r}" for column, value in name.items())
            more = "" if self._has_shard else f"; add a column {SHARD} where keys repeat across shards"
            raise InputError(f"{source}: some keys are there twice ({said}){more}")

    def _hashes(self, names: pa.Table) -> Array:
        from xxhash import xxh3_64_intdigest  # not needed to score arrays in memory

        texts = zip(*(names[column].to_pylist() for column in self._columns), strict=True)
        return np.fromiter(
            (xxh3_64_intdigest("\0".join(map(str, text)).encode()) for text in texts), np.uint64, len(names)
        )

    def _equal(self, one: pa.Table, other: pa.Table) -> Array:
        same = [pc.equal(one[column], other[column]).fill_null(False).to_numpy() for column in self._columns]
        equal: Array = np.logical_and.reduce(same) if len(one) else np.zeros(0, bool)
        return equal
