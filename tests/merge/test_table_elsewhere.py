"""The folder of labels is one table to what people open Parquet with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from rayclean.run.run import Run
from rayclean.storage.published import LABELS, Published

Rows = list[dict[str, Any]]
Readers = dict[str, Callable[[str], pa.Table]]


@pytest.fixture
def readers(load_dataset: Callable[..., Any]) -> Readers:
    """From the folder to its rows, by what reads it."""

    def by_files(folder: str) -> pa.Table:
        return load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train").data.table

    return {
        "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder)),
        "polars": lambda folder: pl.scan_parquet(folder).collect().to_arrow(),
        "DuckDB": lambda folder: duckdb.read_parquet(f"{folder}/*.parquet").to_arrow_table(),
        "datasets, a folder": lambda folder: load_dataset(folder, split="train").data.table,
        "datasets, Parquet in a folder": lambda f: load_dataset("parquet", data_dir=f, split="train").data.table,
        "datasets, files": by_files,
    }


def rows_of(table: pa.Table) -> Rows:
    found: Rows = table.to_pylist()
    return sorted(found, key=lambda row: row["row"])


def test_all_of_them_read_the_same_rows(scored: Run, readers: Readers) -> None:
    published = Published.open(scored.store)
    assert len(published.parts) > 1
    expected = rows_of(pa.concat_tables([published.read(part) for part in published.parts]))
    assert [row["row"] for row in expected] == list(range(scored.catalog.num_rows))
    for name, read in readers.items():
        assert rows_of(read(scored.store.full(LABELS))) == expected, name
