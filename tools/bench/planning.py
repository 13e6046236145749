"""What the driver does for very many rows: its memory and the time to list all units, with sizes faked.

    .venv/bin/python tools/bench/planning.py --rows 100000000 --shards 100000 --classes 1000

The catalog's file has true labels and nothing else but holes; lists and pairs are holes too; half of the embedding's
units are there as empty files. All stages after training are planned as the driver plans them: their jobs and units,
which of these are missing, and what is sent to the pool. No unit is computed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from rayclean.catalog.table import COLUMNS_FILE, SHARDS_FILE, SUMMARY_FILE, Catalog
from rayclean.config import parse_config
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.run.start import ONE_WORKER
from rayclean.scores.pairs_stage import PairsJob
from rayclean.storage.contents import encode
from rayclean.storage.executor import Watcher, train_here
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.snapshots import publish_weights
from rayclean.train.spec import network_spec
from rayclean.train.stage import train_role

PAIRS_A_ROW = 3.0  # distinct undirected pairs at L = 4
_NAMES = {"<i4": "I32", "<i8": "I64", "<u8": "U64", "|u1": "U8"}


def write_sparse(
    path: Path, columns: Mapping[str, tuple[str, tuple[int, ...]]], filled: Mapping[str, np.ndarray]
) -> None:
    """A safetensors file of holes but for the columns that are filled."""
    header: dict[str, object] = {}
    start = 0
    for name, (kind, shape) in columns.items():
        stop = start + int(np.prod(shape)) * np.dtype(kind).itemsize
        header[name] = {"dtype": _NAMES[np.dtype(kind).str], "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
        for name, values in filled.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])  # type: ignore[index]
            file.write(np.ascontiguousarray(values).data)


def fake_catalog(store: Store, rows: int, shards: int, classes: int) -> Catalog:
    """A catalog whose classes follow a long tail of ratio 100."""
    shares = 100 ** -np.linspace(0, 1, classes)
    counts = np.floor(shares / shares.sum() * rows).astype(np.int64)
    counts[0] += rows - counts.sum()
    kinds = {"shard": "<i4", "offset": "<i8", "size": "<i8", "draw_id": "<u8", "duplicate_of": "<i8", "by_label": "<i8"}
    columns = {"label": ("<i4", (rows,)), "class_counts": ("<i8", (classes,)), "digest": ("<u8", (rows, 2))}
    columns |= {name: (kind, (rows,)) for name, kind in kinds.items()}
    label = np.repeat(np.arange(classes, dtype=np.int32), counts)
    catalog = Catalog(store, "catalog-00000000", "00000000")
    folder = Path(store.path) / catalog.folder
    write_sparse(folder / COLUMNS_FILE, columns, {"label": label, "class_counts": counts})
    each = np.full(shards, rows // shards, np.int64)
    urls = [f"s3://bucket/{i:06d}.tar" for i in range(shards)]
    table = pa.table({"url": urls, "name": urls, "size": each, "tag": urls, "samples": each, "rows": each})
    table = table.append_column("quarantined", pa.array(each * 0)).append_column("truncated", pa.array([""] * shards))
    table = table.append_column("first_row", pa.array(np.cumsum(each) - each))
    store.publish(f"{catalog.folder}/{SHARDS_FILE}", encode(SHARDS_FILE, table, "{}"))
    store.publish(f"{catalog.folder}/{SUMMARY_FILE}", encode(SUMMARY_FILE, {"rows": rows}, "{}"))
    return catalog


def fake_pairs(job: PairsJob, rows: int) -> None:
    """Holes in place of each group's pairs."""
    units = job.units()
    pairs = int(PAIRS_A_ROW * rows / len(units))
    for unit in units:
        columns = {"left": ("<i8", (pairs,)), "right": ("<i8", (pairs,)), "listed": ("|u1", (pairs,))}
        write_sparse(Path(job.store.path) / job.file(unit), columns, {})


def own_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    facts = psutil.Process().memory_info()
    return int(facts.rss - facts.shared)


def plan(job: Job) -> tuple[int, int]:
    """Units, and those that are missing, as the driver has them at once."""
    missing = job.missing()
    return len(job.units()), len(missing)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Plan a very large run with sizes faked.")
    parser.add_argument("--rows", type=int, default=100_000_000, help="(100000000)")
    parser.add_argument("--shards", type=int, default=100_000, help="(100000)")
    parser.add_argument("--classes", type=int, default=1000, help="(1000)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        tree = {
            "run": {"dir": folder},
            "data": {"shards": "unused", "classes": options.classes, "size": 8},
            "model": {"width": 4},
            "train": {"epochs": 0, "from": f"{folder}/drawn.safetensors", "precision": "float32"},
            "score": {"precision": "float32"},
            "iofm": {"num": 4},
            "scores": ["iofm"],
        }
        config = parse_config(tree)
        publish_weights(store, "drawn.safetensors", network_spec(config, options.classes).build())
        catalog = fake_catalog(store, options.rows, options.shards, options.classes)
        run = Run(config, store, catalog, None, ONE_WORKER, ("float32", "float32"))
        train_role(run.main.task, ONE_WORKER["train"], train_here, Watcher().meter("train"))
        before = own_bytes()
        print(f"{options.rows:,} rows, {options.shards:,} shards, {options.classes:,} classes; ", end="")
        print(f"before planning {before / 2**20:,.0f} MiB\n")
        print("| stage | units | missing | time, s | driver's growth, MiB | bytes per row |")
        print("|---|--:|--:|--:|--:|--:|")
        for job in grow(run).jobs.values():
            if job.stage in ("catalog", "train") or not job.units():
                continue
            if job.stage == "embed":
                for unit in job.units()[::2]:
                    os.makedirs(f"{folder}/{job.folder}", exist_ok=True)
                    Path(folder, job.file(unit)).touch()
            started_s = time.perf_counter()
            units, missing = plan(job)
            seconds, grown = time.perf_counter() - started_s, own_bytes() - before
            print(
                f"| {job.stage} | {units:,} | {missing:,} | {seconds:.2f} | {grown / 2**20:,.1f} | "
                f"{grown / options.rows:.2f} |",
                flush=True,
            )
            if isinstance(job, PairsJob):
                fake_pairs(job, options.rows)


if __name__ == "__main__":
    main()
