"""What unit files hold, as bytes: Parquet for rows with names, safetensors for plain arrays, JSON for facts.

All three are byte-deterministic: the same content gives the same file. Each carries the environment stamp.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from rayclean.arrays import Array
from rayclean.errors import UnitError
from rayclean.storage.store import Store

Content: TypeAlias = Any  # a pa.Table, named arrays, plain values for JSON, or bytes: see `encode`
STAMP_KEY = "rayclean.environment"

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def encode(name: str, content: Content, stamp: str) -> bytes:
    """The file's bytes, by the extension of `name`: .parquet, .safetensors, .json; anything else is bytes."""
    if name.endswith(".parquet"):
        metadata = {**(content.schema.metadata or {}), STAMP_KEY.encode(): stamp.encode()}
        sink = io.BytesIO()
        pq.write_table(content.replace_schema_metadata(metadata), sink, compression="zstd")
        return sink.getvalue()
    if name.endswith(".safetensors"):
        arrays = {key: np.asarray(value, order="C") for key, value in content.items()}
        return bytes(save(arrays, metadata={STAMP_KEY: stamp}))
    if name.endswith(".json"):
        return (json.dumps(content, indent=1, sort_keys=True, allow_nan=True) + "\n").encode()
    return bytes(content)


def read_table(store: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file."""
    return pq.read_table(pa.BufferReader(store.map(name)), columns=columns)


def read_json(store: Store, name: str) -> Any:
    """Reads a JSON file."""
    return json.loads(store.read(name))


def map_arrays(store: Store, name: str) -> dict[str, Array]:
    """The arrays of a safetensors file as read-only views of the mapped file: nothing is read until touched.

    Raises:
        UnitError: the file is not a whole safetensors file.
    """
    try:
        data = store.map(name)
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(bytes(data[8 : 8 + length]))
        header.pop("__metadata__", None)
        body = data[8 + length :]
        arrays = {}
        for key, entry in header.items():
            start, stop = entry["data_offsets"]
            view = np.frombuffer(body[start:stop], dtype=_DTYPES[entry["dtype"]])
            arrays[key] = view.reshape(entry["shape"])
        return arrays
    except (struct.error, ValueError, KeyError) as e:
        raise UnitError(f"{store.full(name)}: is not a whole safetensors file ({e}); remove it and rerun") from e
