"""A finished tiny run whose table says what a test wants it to say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from rayclean.config import Config
from rayclean.export.choose import COLUMNS, Lines
from rayclean.export.command import export
from rayclean.export.options import ExportOptions
from rayclean.export.table import LabelTable
from rayclean.run.run import Run
from rayclean.storage.contents import encode, read_json, read_table
from rayclean.storage.executor import run_inline
from rayclean.storage.published import MANIFEST, TableFile
from rayclean.storage.store import Store
from rayclean.storage.units import Job

Facts = dict[str, Any]
QUIET = Console(quiet=True)


def edited(run: Run, folder: Path, **columns: Any) -> Config:
    """A copy of a run whose table has these columns, N values each; None is null."""
    shutil.copytree(run.store.path, folder)
    store = Store(str(folder))
    manifest = read_json(store, MANIFEST)
    for entry in manifest["files"]:
        if entry["name"].startswith("labels/part-"):
            table = read_table(store, entry["name"])
            rows = table["row"].to_numpy()
            for name, values in columns.items():
                at = table.schema.get_field_index(name)
                column = pa.array([values[row] for row in rows], table.schema.field(name).type)
                table = table.set_column(at, table.schema.field(name), column)
            data = encode(entry["name"], table, "{}")
            store.publish(entry["name"], data)
            entry |= TableFile.of(entry["name"], data).to_json()
    store.publish(MANIFEST, encode(MANIFEST, manifest, "{}"))
    return run.config.model_copy(update={"run": run.config.run.model_copy(update={"dir": str(folder)})})


def doubtful_run(run: Run, folder: Path) -> Config:
    """A copy with label scores from 0 to 1, a sure prediction for one row in four, and people's word on five rows."""
    rows = np.arange(run.catalog.num_rows)
    score = np.random.default_rng(1).permutation(np.linspace(0, 1, len(rows))).round(2)
    return edited(
        run,
        folder,
        label_score=score,
        predicted_label=(run.catalog.label + rows % 3) % 6,
        predicted_score=np.where(rows % 4 == 0, 0.95, 0.4),
        verified_label=[-1, 0, 1, 2, 3, *[None] * (len(rows) - 5)],
    )


def compute_here(job: Job, *_: object) -> None:
    """In the place of a cluster."""
    run_inline([job])


def lines_of(config: Config) -> list[Facts]:
    """The table, row by row."""
    table = LabelTable.open(Store(config.run.dir))
    lines: list[Facts] = pa.concat_tables(
        [table.part(i, table.schema.names) for i in range(len(table.parts))]
    ).to_pylist()
    return lines


def columns_of(config: Config) -> Lines:
    """The columns that the choice looks at."""
    parts = [Lines.of(batch) for batch in LabelTable.open(Store(config.run.dir)).batches(COLUMNS)]
    return Lines(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def exported(config: Config, to: str, out: Path | str, **wishes: Any) -> Facts:
    """Exports without a console; the summary."""
    return export(config, to, str(out), ExportOptions(**wishes), QUIET)
