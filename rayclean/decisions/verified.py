"""Labels that people have verified (`merge.verified`): a table of keys and labels, found in the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.labels import ClassList
from rayclean.catalog.table import Catalog
from rayclean.errors import InputError
from rayclean.schema import DROPPED, NO_LABEL, Array, drop_word
from rayclean.shards.decode import BadSample
from rayclean.storage.contents import map_arrays
from rayclean.storage.given_tables import read_given
from rayclean.storage.store import Store

FIELD = "merge.verified"
VERIFIED = "verified.safetensors"


class Verified(NamedTuple):
    """Rows with the labels that people gave them.

    Attributes:
        rows: (V,) int64, ascending and distinct.
        labels: (V,) int64; `DROPPED` where no class fits.
    """

    rows: Array
    labels: Array

    @classmethod
    def make(cls, rows: Array, labels: Array) -> Verified:
        """In the order of the rows; of a row that is there twice (frames of a clip) the first label holds."""
        distinct, first = np.unique(rows, return_index=True)
        return cls(distinct, labels[first])

    def between(self, start: int, stop: int) -> Array:
        """(stop - start,) int64 verified labels of rows [start, stop), `NO_LABEL` where there is none."""
        first, last = np.searchsorted(self.rows, [start, stop])
        labels = np.full(stop - start, NO_LABEL, np.int64)
        labels[self.rows[first:last] - start] = self.labels[first:last]
        return labels


NOTHING_VERIFIED = Verified(np.empty(0, np.int64), np.empty(0, np.int64))


class VerifiedSource(Protocol):
    """Where verified labels come from."""

    @property
    def digest(self) -> str:
        """Digest of all that they say."""

    def find(self, catalog: Catalog) -> Verified:
        """Finds the rows that they are labels of."""

    def num_elsewhere(self, found: Verified) -> int:
        """How many are of no row of the catalog in which `found` was found."""


@dataclass(frozen=True)
class VerifiedFile:
    """A Parquet or CSV file with columns `key`, `label` and, where keys repeat, `shard`.

    A label is a class's name or number, or for none of the classes `drop`, or where a class is called so
    `drop: none of the classes`. A sample whose label is empty has not been looked at.

    Attributes:
        digest: of its bytes.
        classes: their names, by label.
    """

    path: str
    digest: str
    classes: tuple[str, ...]

    def find(self, catalog: Catalog) -> Verified:
        """The rows that it names.

        Raises:
            ConfigError: it is no such table.
            InputError: a key is in no shard or in several, a label is no class, or a row has two labels.
        """
        table = self.read()
        said = [label is not None and str(label).strip() != "" for label in table["label"].to_pylist()]
        table = table.filter(pa.array(said, pa.bool_()))
        keys = table["key"].to_pylist()
        shards = table["shard"].to_pylist() if "shard" in table.column_names else [None] * len(keys)
        rows = _one_each(keys, shards, find_rows(catalog, keys, shards))
        labels = [self._label(key, label) for key, label in zip(keys, table["label"].to_pylist(), strict=True)]
        found: dict[int, int] = {}
        for key, row, label in zip(keys, rows, labels, strict=True):
            if found.setdefault(row, label) != label:
                names = ", ".join(
                    drop_word(self.classes) if each == DROPPED else self.classes[each] for each in (found[row], label)
                )
                raise InputError(f"{FIELD} {self.path}: key {key} has two labels ({names}); leave one of them")
        ordered = sorted(found)
        return Verified(np.array(ordered, np.int64), np.array([found[row] for row in ordered], np.int64))

    def read(self) -> pa.Table:
        """The file's columns; `key` and `shard` as text, labels as a Parquet file has them.

        Raises:
            ConfigError: it is no such table.
        """
        return read_given(self.path, FIELD, "label")

    def num_elsewhere(self, found: Verified) -> int:
        """0: `find` refuses such a file."""
        return 0

    def _label(self, key: str, label: object) -> int:
        if label == drop_word(self.classes):
            return DROPPED
        try:
            return ClassList(self.classes).index_of(label)
        except BadSample as e:
            raise InputError(f"{FIELD} {self.path}: key {key}: {e}") from e


def find_rows(catalog: Catalog, keys: Sequence[str], shards: Sequence[str | None]) -> list[list[int]]:
    """Rows of each key: in its shard, which is named as in the final table, or in all where that is None."""
    wanted: dict[str | None, set[str]] = {}
    for shard, key in zip(shards, keys, strict=True):
        wanted.setdefault(shard, set()).add(key)
    everywhere = wanted.get(None, set())
    found: dict[tuple[str | None, str], list[int]] = {}
    names, first_rows = (catalog.shards[column].to_pylist() for column in ("name", "first_row"))
    for index, (name, first) in enumerate(zip(names, first_rows, strict=True)):
        named = wanted.get(name, set())
        here = everywhere | named
        if not here:
            continue
        column = catalog.rows_of_shard(index)["key"]
        at = np.flatnonzero(pc.is_in(column, value_set=pa.array(sorted(here))).to_numpy())
        for position, key in zip(at.tolist(), column.take(at).to_pylist(), strict=True):
            for shard, keys_there in ((None, everywhere), (name, named)):
                if key in keys_there:
                    found.setdefault((shard, key), []).append(first + position)
    return [found.get((shard, key), []) for shard, key in zip(shards, keys, strict=True)]


def _one_each(keys: Sequence[str], shards: Sequence[str | None], rows: Sequence[list[int]]) -> list[int]:
    """The row of each key.

    Raises:
        InputError: a key has none, or several.
    """
    for key, shard, matches in zip(keys, shards, rows, strict=True):
        if not matches:
            where = "no shard of the run" if shard is None else f"no shard {shard} of the run"
            raise InputError(f"{FIELD}: key {key} is in {where}; take keys and shards from the table's columns")
        if len(matches) > 1:
            raise InputError(f"{FIELD}: key {key} is in {len(matches)} shards; add the column shard, as in the table")
    return [row for (row,) in rows]


def read_verified(store: Store, folder: str) -> Verified:
    """What people have verified of the rows, or clips, of a merge that takes that in."""
    return Verified(**map_arrays(store, f"{folder}/{VERIFIED}"))
