"""A million samples on this machine: every stage from shards to the final table, with time and memory.

    .venv/bin/python tools/bench/run_million.py demo/million             # makes the shards where they are not there
    .venv/bin/python tools/bench/run_million.py demo/million --rows 100000

100 classes with a long tail (the largest has 100 times the samples of the smallest), images of 8 px, a network of
5,000 weights, one epoch, one snapshot, IOFM with L = 4; then INN on the first tenth of the shards by that snapshot.
Killed and started again, it goes on. The figures are written to FOLDER/figures-ROWS.json, and printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rayclean.storage.store import Store
from tools.bench.scaling import Size, watch
from tools.data.make_synthetic import main as make_synthetic

CLASSES, SIZE, SHARD_ROWS, LONG_TAIL, FACTORS = 100, 8, 10_000, 100, 6
SETTINGS: dict[str, dict[str, object]] = {
    "data": {"label": "json:label", "truth": "json:truth", "classes": CLASSES, "size": SIZE},
    "model": {"name": "small_resnet", "width": 4},
    "train": {"epochs": 1, "snapshot_every": 1, "augment": "none"},
    "iofm": {"num": 4},
}


def make_shards(folder: Path, rows: int) -> None:
    """Writes the shards, unless the last one is there."""
    if (folder / f"synthetic-{rows // SHARD_ROWS - 1:06d}.tar").exists():
        return
    drawn = {"samples": rows, "classes": CLASSES, "size": SIZE, "shard-samples": SHARD_ROWS}
    drawn |= {"factors": FACTORS, "long-tail": LONG_TAIL}
    make_synthetic([str(folder), *(f"--{name}={value}" for name, value in drawn.items())])


def write_config(path: Path, shards: str, run: Path, changes: dict[str, Any]) -> str:
    """A config file; returns its path."""
    tree: dict[str, Any] = {**SETTINGS, "run": {"dir": str(run)}, **changes}
    tree["data"] = {**SETTINGS["data"], "shards": shards}
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def report(size: Size) -> list[str]:
    """Markdown of one run."""
    lines = ["| stage | work, s | s per 1,000 samples | largest worker, MiB |", "|---|--:|--:|--:|"]
    for name, stage in size.stages.items():
        share, memory = 1000 * stage.work_s / size.rows, stage.worker_bytes / 2**20
        lines.append(f"| {name} | {stage.work_s:,.0f} | {share:.3f} | {memory:,.0f} |")
    driver = f"driver: {size.driver_bytes / 2**20:,.0f} MiB of its own"
    return [*lines, "", f"{size.rows:,} rows in {size.wall_s:,.0f} s; {driver}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Score a million synthetic samples.")
    parser.add_argument("folder", type=Path, help="for shards, runs and figures")
    parser.add_argument("--rows", type=int, default=1_000_000, help="samples, a multiple of 100,000 (1000000)")
    options = parser.parse_args(arguments)
    folder, rows = options.folder, options.rows
    folder.mkdir(parents=True, exist_ok=True)
    shards = folder / (f"shards-{rows}")
    make_shards(shards, rows)
    run, tenth = folder / f"run-{rows}", folder / f"run-{rows}-inn"
    config = write_config(folder / f"config-{rows}.yaml", f"{shards}/*.tar", run, {})
    first = f"{shards}/synthetic-{{000000..{rows // SHARD_ROWS // 10 - 1:06d}}}.tar"
    scoring = {
        "train": {"epochs": 0, "from": str(run)},
        "inn": {"num": 4, "features": "self"},
        "scores": ["iofm", "inn"],
    }
    other = write_config(folder / f"config-{rows}-inn.yaml", first, tenth, scoring)
    figures = {"run": watch([config], rows, Store(str(run))), "inn": watch([other], rows // 10, Store(str(tenth)))}
    found = {name: asdict(size) for name, size in figures.items()}
    (folder / f"figures-{rows}.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, size in figures.items():
        print("\n".join([f"{name}:", "", *report(size), ""]))


if __name__ == "__main__":
    main()
