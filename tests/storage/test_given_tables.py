"""CSV that is no spreadsheet's formulas and comes back as it was; tables of others that are not as they should be."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayclean.errors import ConfigError
from rayclean.storage.given_tables import ESCAPED, FORMULAS, encode_csv, read_given

# Text as keys may be, with what a spreadsheet or a CSV reader takes for something else more often than by chance.
TEXT = st.lists(st.sampled_from([*FORMULAS, *"'\"',;\n0", "\ufeff", "\r\n"]) | st.characters(codec="utf-8"), max_size=6)
CELLS = st.lists(TEXT.map("".join), min_size=1, max_size=20)


@settings(max_examples=60)
@given(keys=CELLS)
@example(keys=["007", "1", "=1", "'", "''=", "\n=1", "a\r\nb", "", "\ufeffk", "\x00", "é"])
def test_text_comes_back_and_no_cell_begins_a_formula(
    keys: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = encode_csv(pa.table({"key": keys, "label": keys[::-1], "shard": pa.array(keys).dictionary_encode()}))
    file = tmp_path_factory.getbasetemp() / "cells.csv"
    file.write_bytes(data)
    found = read_given(str(file), "merge.verified", "label")
    assert [found[name].to_pylist() for name in ("key", "label", "shard")] == [keys, keys[::-1], keys]
    lines = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert {line[ESCAPED] for line in lines} == {"true"}
    for line, key in zip(lines, keys, strict=True):
        assert line["key"][:1] not in set(FORMULAS)
        assert line["key"] == (
            f"'{key}" if key[:1] in {*FORMULAS, "'"} and key else key
        )  # and nothing else has changed


def test_without_the_column_nothing_is_taken_off(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("key,label\n'a,007\n=b,'1\n\n")
    assert read_given(str(file), "f", "label").to_pydict() == {"key": ["'a", "=b"], "label": ["007", "'1"]}
    file.write_text(f"key,label,{ESCAPED}\n'a,007,true\n''=b,'1,\n")
    assert read_given(str(file), "f", "label")["key"].to_pylist() == ["a", "'=b"]


def test_what_is_converted_to_parquet_on_the_way_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "key=3"  # no column
    folder.mkdir()
    pq.write_table(pa.table({"key": ["'=a", "b"], "label": [1, 2], ESCAPED: [True, True]}), folder / "a.parquet")
    found = read_given(str(folder / "a.parquet"), "f", "label")
    assert (found["key"].to_pylist(), found["label"].to_pylist()) == (["=a", "b"], [1, 2])


LABEL = pa.array(["1", "2"])


def table_of(**columns: Any) -> pa.Table:
    return pa.table({"label": LABEL} | columns)


BAD_TABLES = {
    "null": (table_of(key=["a", None]), "row 2 has no key"),
    "binary": (table_of(key=[b"a", b"\xff"]), "column key is of type binary, expected text"),
    "struct": (table_of(key=[{"a": 1}, {"a": 2}]), "column key is of type struct"),
    "float": (table_of(key=[1.0, 2.5]), "column key is of type double"),
    "list": (table_of(key=["a", "b"], shard=[["x"], ["y"]]), "column shard is of type list"),
    "twice": (pa.table([["a", "b"], ["a", "b"], LABEL], ["key", "key", "label"]), "column key is there 2 times"),
    "labels": (pa.table([["a", "b"], LABEL, LABEL], ["key", "label", "label"]), "column label is there 2 times"),
    "no key": (table_of(), "no column key; expected columns key and label, found label"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_columns_that_cannot_be_are_told_in_a_line(name: str, tmp_path: Path) -> None:
    table, said = BAD_TABLES[name]
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError) as caught:
        read_given(str(tmp_path / "a.parquet"), "merge.verified", "label")
    assert str(caught.value).startswith(f"merge.verified {tmp_path}/a.parquet: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"key,label\nk1,1\nk2", "line 3 has 1 cells, expected 2"),
        (b'"key","label"\n"k1","1"\n"k2","1', "unexpected end of data"),
        (b"key,label\nk1,1,2\n", "line 2 has 3 cells"),
        (b"key,key,label\na,b,1\n", "column key is there 2 times"),
        (b"key;label\na;1\n", "no column key; expected columns key and label, found key;label"),
        (b"key,label\n\xff,1\n", "can't decode byte 0xff"),
        (b"key,label\n" + b"a" * 200_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_csv_that_is_cut_or_none_is_told_in_a_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_given(str(tmp_path / "a.csv"), "merge.verified", "label")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_that_is_cut_or_damaged_is_told_or_read(tmp_path: Path) -> None:
    """Cut anywhere it is an error; with a byte changed it may still be a table, but is never a traceback."""
    pq.write_table(pa.table({"key": [f"k{i}" for i in range(50)], "label": ["1"] * 50}), tmp_path / "whole.parquet")
    whole, file = (tmp_path / "whole.parquet").read_bytes(), tmp_path / "a.parquet"
    refused = 0
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at])
        with pytest.raises(ConfigError, match="cannot be read, is it whole"):
            read_given(str(file), "f", "label")
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_given(str(file), "f", "label")
        except ConfigError:
            refused += 1
    assert refused > 0
