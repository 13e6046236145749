"""What unit files hold, as bytes: Parquet for rows with names, safetensors for plain arrays, JSON for facts.

All three are byte-deterministic: the same content gives the same file. Each carries the environment stamp and a
checksum; what is read here is compared with it, and a file that is missing or damaged is a `DamagedFile`.

A store in memory keeps the content itself: what is read there is what a file would have given.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclean.errors import DamagedFile, LostFile
from rayclean.schema import Array
from rayclean.storage import checksums
from rayclean.storage.checksums import CheckedArrays
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.store import Store

Content: TypeAlias = Any  # a pa.Table, named arrays, plain values for JSON, or bytes: see `encode`
STAMP_KEY = "rayclean.environment"


def encode(name: str, content: Content, stamp: str) -> bytes:
    """The file's bytes, by the extension of `name`: .parquet, .safetensors, .json; anything else is bytes."""
    if name.endswith(".parquet"):
        marks = {STAMP_KEY.encode(): stamp.encode(), checksums.PARQUET_KEY: checksums.PARQUET_BLANK}
        table = content.replace_schema_metadata({**(content.schema.metadata or {}), **marks})
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        return checksums.seal_table(sink.getvalue())
    if name.endswith(".safetensors"):
        from safetensors.numpy import save  # not needed to score arrays in memory

        arrays = {key: np.asarray(value, order="C") for key, value in content.items()}
        return checksums.seal_arrays(bytes(save(arrays, metadata={STAMP_KEY: stamp})))
    if name.endswith(".json"):
        text = (json.dumps(content, indent=1, sort_keys=True, allow_nan=True) + "\n").encode()
        return checksums.seal_json(text) if isinstance(content, dict) else text
    return checksums.seal_bytes(content)


def write(store: Store, name: str, content: Content, stamp: str = "{}") -> None:
    """Publishes a file, see `encode`."""
    if isinstance(store, MemoryStore):
        store.keep(name, _as_read(name, content))
    else:
        store.publish(name, encode(name, content, stamp))


def create(store: Store, name: str, content: Content, stamp: str = "{}") -> bool:
    """Publishes a file only if there is none of this name yet; returns whether it did."""
    if not isinstance(store, MemoryStore):
        return store.create(name, encode(name, content, stamp))
    if is_new := not store.exists(name):
        write(store, name, content)
    return is_new


def _as_read(name: str, content: Content) -> Content:
    """What a file would give back: read-only copies of arrays, JSON's own types."""
    if name.endswith(".safetensors"):
        arrays = {key: np.array(value, order="C") for key, value in content.items()}
        for array in arrays.values():
            array.flags.writeable = False
        return KeptArrays(arrays)
    return json.loads(json.dumps(content)) if name.endswith(".json") else content


class KeptArrays(dict[str, Array]):
    """Arrays of a store in memory by name, taken as those of `CheckedArrays` are."""

    def take(self, name: str, rows: Array) -> Array:
        """`self[name][rows]`."""
        taken: Array = self[name][rows]
        return taken


def _kept(store: MemoryStore, name: str) -> Content:
    try:
        return store.kept(name)
    except FileNotFoundError as e:
        raise DamagedFile(store.full(name), "there is no such file") from e


def _mapped(store: Store, name: str) -> memoryview:
    try:
        data = store.map(name)
    except (FileNotFoundError, IsADirectoryError) as e:
        raise LostFile(store.full(name)) from e
    if not len(data):
        raise DamagedFile(store.full(name), "it is empty")
    return data


def open_table(store: Store, name: str) -> pq.ParquetFile:
    """A Parquet file, compared with its checksum, of which groups of rows can be read.

    Raises:
        DamagedFile: it is missing, or not what was written.
    """
    data = _mapped(store, name)
    checksums.check_table(data, store.full(name))
    try:
        return pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as e:
        raise DamagedFile(store.full(name), f"it is no whole Parquet file: {e}") from e


def read_table(store: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file; errors as `open_table`."""
    if isinstance(store, MemoryStore):
        table: pa.Table = _kept(store, name)
        return table if columns is None else table.select(columns)
    file = open_table(store, name)
    try:
        return file.read(columns=columns)
    except (pa.ArrowException, OSError) as e:
        raise DamagedFile(store.full(name), f"it is no whole Parquet file: {e}") from e


def read_json(store: Store, name: str) -> Any:
    """Reads a JSON file.

    Raises:
        DamagedFile: it is missing, or not what was written.
    """
    if isinstance(store, MemoryStore):
        return _kept(store, name)
    return checksums.open_json(bytes(_mapped(store, name)), store.full(name))


def read_bytes(store: Store, name: str) -> memoryview:
    """Reads a file of another kind than the three.

    Raises:
        DamagedFile: it is missing, or not what was written.
    """
    if isinstance(store, MemoryStore):
        return memoryview(_kept(store, name))
    return checksums.open_bytes(_mapped(store, name), store.full(name))


def map_arrays(store: Store, name: str) -> CheckedArrays | KeptArrays:
    """The arrays of a safetensors file as read-only views of the mapped file: nothing is read until touched.

    Raises:
        DamagedFile: the file is missing, or its header is not what was written; later, where an array is taken that is
            not what was written.
    """
    if isinstance(store, MemoryStore):
        arrays: KeptArrays = _kept(store, name)
        return arrays
    return CheckedArrays(_mapped(store, name), store.full(name))


def content_digest(store: Store, name: str) -> str:
    """SHA-256, in hex, of what a safetensors or Parquet file holds, whatever checksums it carries.

    That of a safetensors file is of the file as it would be without them; that of a Parquet file is of its columns. A
    file of an earlier release, which carries none, keeps the digest of its bytes, so that such a run goes on under its
    names. What is in memory has names of its own: arrays are as columns there.

    Raises:
        DamagedFile: the file is missing, or not what was written.
    """
    if isinstance(store, MemoryStore):
        return _digest_of(_kept(store, name))
    data = _mapped(store, name)
    if name.endswith(".safetensors"):
        checksums.check_arrays(data, store.full(name))
        found = hashlib.sha256()
        for part in checksums.plain_arrays(data):
            found.update(part)
        return found.hexdigest()
    table = read_table(store, name)
    if checksums.PARQUET_KEY not in (table.schema.metadata or {}):
        return hashlib.sha256(data).hexdigest()
    return _digest_of(table)


def _digest_of(content: pa.Table | Mapping[str, Array]) -> str:
    """Of columns, or of arrays as if they were columns."""
    found = hashlib.sha256()
    if isinstance(content, pa.Table):
        columns = {
            f"{key}:{content[key].type}:{len(content)};": content[key].to_numpy() for key in content.column_names
        }
    else:
        columns = {f"{key}:{values.dtype}:{values.shape};": values for key, values in content.items()}
    for title, values in columns.items():
        found.update(title.encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
