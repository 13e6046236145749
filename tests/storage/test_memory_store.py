"""A store in memory: what comes out is what a file would have given; of its names see test_store.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclean.errors import DamagedFile
from rayclean.storage.contents import content_digest, create, map_arrays, read_bytes, read_json, read_table, write
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.store import Store


def test_it_gives_what_files_give(tmp_path: Path) -> None:
    tables = pa.table({"a": [1, None], "d": pa.array(["x", "y"]).dictionary_encode()})
    arrays = {"x": np.arange(6).reshape(2, 3).T, "e": np.empty((0, 2), np.float16)}
    facts = {"b": (1, 2.5), "a": {3: None}}
    read: list[Any] = []
    for store in (Store(str(tmp_path)), MemoryStore()):
        write(store, "t.parquet", tables)
        write(store, "f/x.safetensors", arrays)
        write(store, "j.json", facts)
        write(store, "x.bin", b"as it is")
        assert not create(store, "j.json", {})
        found = map_arrays(store, "f/x.safetensors")
        kept = {name: (found[name].dtype, found[name].flags.writeable, found[name].tolist()) for name in found}
        taken = found.take("x", np.array([2, 0])).tolist()
        table, few = read_table(store, "t.parquet"), read_table(store, "t.parquet", ["a"])
        other = read_json(store, "j.json"), bytes(read_bytes(store, "x.bin")), content_digest(store, "t.parquet")
        read.append((kept, taken, table.to_pydict(), table.schema.types, few.to_pydict(), *other))
    assert read[0] == read[1]


def test_what_is_kept_stays_as_it_was() -> None:
    store, array = MemoryStore(), np.zeros(3)
    write(store, "x.safetensors", {"a": array, "part": array[:2]})
    before = content_digest(store, "x.safetensors")
    array += 1
    assert map_arrays(store, "x.safetensors")["part"].tolist() == [0, 0]
    assert content_digest(store, "x.safetensors") == before
    write(store, "x.safetensors", {"a": array, "part": array[:2]})
    assert content_digest(store, "x.safetensors") != before
    with pytest.raises(DamagedFile, match="there is no such file"):
        map_arrays(store, "y.safetensors")
    assert map_arrays(pickle.loads(pickle.dumps(store)), "x.safetensors")["a"].tolist() == [1, 1, 1]
