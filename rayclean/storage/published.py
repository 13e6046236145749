"""The table that a run has published, and the one way of reading it: by its manifest, checked, and by nothing else.

`labels/` holds the parts and nothing else, so that every reader of Parquet opens the folder; `tables/` holds what
belongs to them: classes, clips, summary, and the manifest. All names carry the merge's fingerprint and the manifest is
one file, so that a reader sees one table or none, whoever publishes meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.errors import DamagedFile, InputError, LostFile
from rayclean.storage.checksums import checksum
from rayclean.storage.contents import encode, open_table, read_json, read_table
from rayclean.storage.store import Store

LABELS, TABLES = "labels", "tables"
MANIFEST = f"{TABLES}/_manifest.json"
EARLIER_MANIFEST = f"{LABELS}/_manifest.json"  # of earlier releases; polars and others take it for a part
PART, CLIPS, CLASSES, SUMMARY = "part", "clips", "classes", "summary"
UPDATE = "give its `rayclean run` command again to bring it up to date"


@dataclass(frozen=True)
class TableFile:
    """A file of the table.

    Attributes:
        path: in the run.
        num_bytes: its size.
        sha256: of its bytes.
        xxh3: likewise, which readers compare; None in a table of an earlier release.
    """

    path: str
    num_bytes: int
    sha256: str
    xxh3: str | None

    @classmethod
    def of(cls, path: str, data: bytes | memoryview) -> TableFile:
        """That of a file's bytes."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest(), checksum(data).hexdigest())

    @property
    def kind(self) -> str:
        """`part`, `clips`, `classes` or `summary`."""
        return self.path.rpartition("/")[2].partition(".")[0].partition("-")[0]

    def fits(self, data: bytes | memoryview) -> bool:
        """Whether these are the bytes."""
        if self.xxh3 is not None:
            return checksum(data).hexdigest() == self.xxh3
        return hashlib.sha256(data).hexdigest() == self.sha256

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"name": self.path, "bytes": self.num_bytes, "sha256": self.sha256, "xxh3": self.xxh3}

    @classmethod
    def from_json(cls, file: Mapping[str, Any]) -> TableFile:
        """Of a manifest; those of earlier releases name all files without their folder, which is `labels`."""
        name = str(file["name"])
        path = name if "/" in name else f"{LABELS}/{name}"
        return cls(path, int(file["bytes"]), str(file["sha256"]), file.get("xxh3"))


@dataclass(frozen=True)
class Published:
    """A published table. Picklable and cheap: files are opened and checked when they are asked for.

    Attributes:
        store: the run's files.
        merge: the folder that the table comes from.
        names: of the classes, by label.
        lease: number of the lease of the driver that published it.
        files: its files.
    """

    store: Store
    merge: str
    names: tuple[str, ...]
    lease: int
    files: tuple[TableFile, ...]
    _checked: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def open(cls, store: Store) -> Published:
        """The table of a run.

        Raises:
            InputError: there is none.
            DamagedFile: its manifest cannot be read, or a file of it is not there.
        """
        path = manifest_of(store)
        if path is None:
            raise InputError(f"{store.root} holds no complete table (no {MANIFEST}); run `rayclean run` to its end")
        found = read_json(store, path)
        try:
            files = tuple(map(TableFile.from_json, found["files"]))
            if (names := found.get("classes")) is None:  # of an earlier release
                names = read_table(store, f"{LABELS}/classes.parquet", ["name"])["name"].to_pylist()
            table = cls(store, str(found["merge"]), tuple(map(str, names)), int(found.get("lease", 0)), files)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise DamagedFile(store.full(path), f"it is no manifest of a table: {e!r}") from e
        there = {f"{folder}/{name}" for folder in (LABELS, TABLES) for name in store.list(folder)}
        for file in files:
            if file.path not in there:
                raise LostFile(store.full(file.path))
        return table

    def __getstate__(self) -> dict[str, object]:
        names = ("store", "merge", "names", "lease", "files")
        return {**{name: getattr(self, name) for name in names}, "_checked": set()}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Paths of the files of a kind, in order of the rows."""
        return tuple(sorted(file.path for file in self.files if file.kind == kind))

    @property
    def parts(self) -> tuple[str, ...]:
        """Paths of the parts, in order of the rows; all but the last have equally many."""
        return self.of_kind(PART)

    @property
    def digest(self) -> str:
        """Of the bytes of all parts."""
        sums = sorted((file.path, file.sha256) for file in self.files if file.kind == PART)
        return hashlib.sha256("".join(sha256 for _, sha256 in sums).encode()).hexdigest()

    def check(self, path: str) -> None:
        """Compares a file with the manifest, once a process.

        Raises:
            DamagedFile: it is not the one that was published.
        """
        if path not in self._checked:
            file = next(file for file in self.files if file.path == path)
            try:
                fits = file.fits(self.store.map(path))
            except FileNotFoundError as e:
                raise LostFile(self.store.full(path)) from e
            if not fits:
                raise DamagedFile(self.store.full(path), "it is not the file that the table's manifest names")
            self._checked.add(path)

    def open_part(self, path: str) -> pq.ParquetFile:
        """A Parquet file of the table, of which groups of rows can be read."""
        self.check(path)
        return open_table(self.store, path)

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a Parquet file of the table."""
        self.check(path)
        return read_table(self.store, path, None if columns is None else list(columns))

    def classes(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Facts of each class: `schema.CLASS_SCHEMA`."""
        return self.read(self.of_kind(CLASSES)[0], columns)

    def summary(self) -> dict[str, Any]:
        """Counts, and what is to be known of the table."""
        path = self.of_kind(SUMMARY)[0]
        self.check(path)
        found: dict[str, Any] = read_json(self.store, path)
        return found

    def is_whole(self) -> bool:
        """Whether all files are those of the manifest; reads all of them."""
        try:
            for file in self.files:
                self.check(file.path)
        except DamagedFile:
            return False
        return True

    def older(self) -> InputError:
        """That it is not the table that the config leads to."""
        return InputError(
            f"{self.store.root}: the table comes from {self.merge}, made with another config or version of rayclean "
            f"than this one; {UPDATE}"
        )

    def of_other_rows(self, found: str, expected: str) -> InputError:
        """That its rows are not those of the run's catalog."""
        told = f"found {found}, expected {expected}"
        return InputError(f"{self.store.root}: the table is of other rows than the run's catalog: {told}; {UPDATE}")

    def encode(self) -> bytes:
        """The manifest."""
        content = {"merge": self.merge, "lease": self.lease, "classes": list(self.names)}
        return encode(MANIFEST, {**content, "files": [file.to_json() for file in self.files]}, "{}")


def manifest_of(store: Store) -> str | None:
    """The path of a run's manifest: `MANIFEST`, or where an earlier release put it; None where there is no table."""
    return next((path for path in (MANIFEST, EARLIER_MANIFEST) if store.exists(path)), None)


def find_published(store: Store) -> Published | None:
    """The table of a run; None where there is none yet. Errors as `Published.open`, but for that."""
    return Published.open(store) if manifest_of(store) else None


def whole_table(store: Store) -> Published | None:
    """The table of a run where all its files are those that were published; None where there is none such."""
    try:
        table = find_published(store)
    except DamagedFile:
        return None
    return table if table is not None and table.is_whole() else None
