"""Checksums: damage of any kind at any place is met where a file is read, and nothing more is read for it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from rayclean.errors import ConfigError, DamagedFile
from rayclean.storage import checksums
from rayclean.storage.checksums import CHUNK_BYTES, CheckedArrays
from rayclean.storage.contents import (
    STAMP_KEY,
    content_digest,
    encode,
    map_arrays,
    read_bytes,
    read_json,
    read_table,
)
from rayclean.storage.store import Store
from rayclean.train.models.weights import read_state

ARRAYS = {"a": np.arange(6.0), "b": np.ones((2, 3), np.int16), "none": np.empty((0, 4), np.float32)}
CONTENTS: dict[str, Any] = {
    "x.safetensors": ARRAYS,
    "x.parquet": pa.table({"a": [1, None, 3], "b": ["x", "y", "z"]}),
    "x.json": {"a": 1.5, "b": [1, {"c": None}], "d": float("nan")},
    "x.faiss": b"any bytes",
}
READ: dict[str, Callable[[Store, str], Any]] = {
    "x.safetensors": lambda store, name: dict(map_arrays(store, name)),
    "x.parquet": read_table,
    "x.json": read_json,
    "x.faiss": read_bytes,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.mark.parametrize("name", CONTENTS)
def test_a_bit_that_flips_anywhere_is_met(name: str, store: Store) -> None:
    data = encode(name, CONTENTS[name], "{}")
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        Path(store.full(name)).write_bytes(flipped)
        with pytest.raises(DamagedFile, match=name):
            READ[name](store, name)


@pytest.mark.parametrize("name", CONTENTS)
def test_so_are_files_that_end_early_or_late_and_such_that_are_not_there(name: str, store: Store) -> None:
    data = encode(name, CONTENTS[name], "{}")
    for damaged in (*(data[:length] for length in range(len(data))), data + b"\0", data + data):
        Path(store.full(name)).write_bytes(damaged)
        with pytest.raises(DamagedFile, match=name):
            READ[name](store, name)
    store.remove(name)
    with pytest.raises(DamagedFile, match="there is no such file"):
        READ[name](store, name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4) | st.lists(JSON, max_size=3))
def test_json_comes_back_as_it_was(content: Any) -> None:
    data = encode("x.json", content, "{}")
    assert checksums.open_json(data, "x.json") == content
    seen = json.loads(data)  # by another program
    if isinstance(content, dict):
        seen.pop(checksums.NAME)
    assert seen == content


def test_other_programs_read_the_files(store: Store) -> None:
    loaded = safetensors.numpy.load(encode("x.safetensors", ARRAYS, "{}"))
    assert {name: value.tolist() for name, value in loaded.items()} == {k: v.tolist() for k, v in ARRAYS.items()}
    store.publish("x.parquet", encode("x.parquet", CONTENTS["x.parquet"], "{}"))
    found = pq.read_table(store.full("x.parquet"), page_checksum_verification=True)
    assert found.equals(CONTENTS["x.parquet"])


def test_what_is_mapped_is_checked_where_it_is_touched() -> None:
    rows = np.arange(3 * CHUNK_BYTES // 8 + 5).astype("<i8")
    data = bytearray(encode("x.safetensors", {"rows": rows, "rest": np.zeros(10)}, "{}"))
    place = data.index(rows[CHUNK_BYTES // 8 : CHUNK_BYTES // 8 + 4].tobytes())  # the second chunk of rows
    data[place] ^= 1
    arrays = CheckedArrays(memoryview(bytes(data)), "x")
    assert arrays["rest"].tolist() == [0.0] * 10
    untouched = np.array([0, CHUNK_BYTES // 8 - 1, 2 * CHUNK_BYTES // 8, len(rows) - 1])
    assert arrays.take("rows", untouched).tolist() == untouched.tolist()
    for touched in ([CHUNK_BYTES // 8], [0, 2 * CHUNK_BYTES // 8 - 1]):
        with pytest.raises(DamagedFile, match="'rows'"):
            arrays.take("rows", np.array(touched))
    with pytest.raises(DamagedFile, match="'rows'"):
        arrays["rows"]


@pytest.mark.parametrize("width", [1, 3, 1000, CHUNK_BYTES // 4 + 7])
def test_rows_are_checked_whole_where_they_lie_in_several_chunks(width: int) -> None:
    values = np.random.default_rng(0).random((2 * CHUNK_BYTES // (4 * width) + 3, width)).astype(np.float32)
    data = encode("x.safetensors", {"a": values}, "{}")
    for row in (0, len(values) // 2, len(values) - 1):
        damaged = bytearray(data)
        damaged[len(data) - values.nbytes + (row + 1) * 4 * width - 1] ^= 1  # its last byte
        arrays = CheckedArrays(memoryview(bytes(damaged)), "x")
        with pytest.raises(DamagedFile):
            arrays.take("a", np.array([row]))
    np.testing.assert_array_equal(CheckedArrays(memoryview(data), "x").take("a", np.array([1, 0])), values[[1, 0]])


def test_files_of_earlier_releases_are_read_with_a_line(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.publish("x.safetensors", bytes(safetensors.numpy.save(ARRAYS, metadata={STAMP_KEY: "{}"})))
    pq.write_table(CONTENTS["x.parquet"], store.full("x.parquet"))
    store.publish("x.json", b'{"a": 1}\n')
    checksums.note_unchecked.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert map_arrays(store, "x.safetensors")["a"].tolist() == ARRAYS["a"].tolist()
        assert read_table(store, "x.parquet").equals(CONTENTS["x.parquet"])
        assert read_json(store, "x.json") == {"a": 1}
    assert [record.message for record in caplog.records if "earlier release" in record.message] == [
        "files of this run were written by an earlier release and have no checksums; they are read as they are"
    ]


def test_checksums_enter_no_fingerprint(store: Store) -> None:
    plain = bytes(safetensors.numpy.save(ARRAYS, metadata={STAMP_KEY: "{}"}))
    store.publish("x.safetensors", encode("x.safetensors", ARRAYS, "{}"))
    assert content_digest(store, "x.safetensors") == hashlib.sha256(plain).hexdigest()
    store.publish("x.safetensors", plain)  # as an earlier release wrote it
    assert content_digest(store, "x.safetensors") == hashlib.sha256(plain).hexdigest()
    table = pa.table({"loss": np.arange(5, dtype=np.float32)})
    store.publish("x.parquet", encode("x.parquet", table, "{}"))
    digest = content_digest(store, "x.parquet")
    store.publish("x.parquet", encode("x.parquet", table, '{"threads": 2}'))
    assert content_digest(store, "x.parquet") == digest
    store.publish("x.parquet", encode("x.parquet", pa.table({"loss": np.arange(5.0)}), "{}"))
    assert content_digest(store, "x.parquet") != digest


def test_weights_that_are_damaged_are_not_trained_from(tmp_path: Path) -> None:
    data = bytearray(encode("w.safetensors", ARRAYS, "{}"))
    data[-1] ^= 1
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match=r"train\.from .*w\.safetensors: is damaged"):
        read_state(str(tmp_path / "w.safetensors"), "train.from")
