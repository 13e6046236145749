"""Unit files: what goes in comes out, the same content is the same bytes, and a cut file is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.errors import DamagedFile
from rayclean.schema import Array
from rayclean.storage.contents import STAMP_KEY, encode, map_arrays, read_bytes, read_json, read_table
from rayclean.storage.store import Store

dtypes = st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?"])
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=5), arrays, max_size=4), st.booleans())
def test_arrays_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Array], transposed: bool
) -> None:
    content = {name: value.T if transposed else value for name, value in content.items()}
    store = Store(str(tmp_path_factory.mktemp("contents")))
    store.publish("x.safetensors", encode("x.safetensors", content, "{}"))
    found = map_arrays(store, "x.safetensors")
    assert set(found) == set(content)
    for name, value in content.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()
        assert not found[name].flags.writeable


def test_tables_and_json_come_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    table = pa.table({"a": [1, None], "b": ["x", "y"]})
    store.publish("t.parquet", encode("t.parquet", table, "{}"))
    assert read_table(store, "t.parquet").equals(table)
    assert read_table(store, "t.parquet", ["b"]).column_names == ["b"]
    store.publish("j.json", encode("j.json", {"b": 1, "a": [2.5]}, "{}"))
    assert read_json(store, "j.json") == {"a": [2.5], "b": 1}
    store.publish("x.bin", encode("x.bin", b"as it is", "{}"))
    assert bytes(read_bytes(store, "x.bin")) == b"as it is"


@pytest.mark.parametrize("name", ["x.parquet", "x.safetensors", "x.json"])
def test_the_same_content_is_the_same_bytes(name: str) -> None:
    def content(order: list[str]) -> object:
        columns = {key: np.arange(5) * len(key) for key in order}
        if name.endswith(".parquet"):
            return pa.table({key: columns[key] for key in sorted(columns)})
        return columns if name.endswith(".safetensors") else {key: key for key in order}

    assert encode(name, content(["a", "bc"]), "{}") == encode(name, content(["bc", "a"]), "{}")


def test_unit_files_carry_their_stamp(tmp_path: Path) -> None:
    stamp = json.dumps({"device": "cpu"})
    data = encode("x.safetensors", {"a": np.arange(3)}, stamp)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"][STAMP_KEY] == stamp
    table = pa.table({"a": [1]}).replace_schema_metadata({"rows": "1"})
    schema = pq.read_schema(pa.BufferReader(encode("x.parquet", table, stamp)))
    assert schema.metadata[STAMP_KEY.encode()] == stamp.encode()
    assert schema.metadata[b"rows"] == b"1"


def test_a_cut_file_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    data = encode("x.safetensors", {"a": np.arange(6.0), "b": np.ones((2, 3), np.int16)}, "{}")
    for length in range(len(data)):
        store.publish("x.safetensors", data[:length])
        with pytest.raises(DamagedFile, match=r"x\.safetensors: "):
            map_arrays(store, "x.safetensors")
