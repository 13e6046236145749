"""Labels that nobody has to check, for trying `merge.verified` where the truth is known: a few rows with their truth.

.venv/bin/python tools/data/verify_some.py runs/cells/human --num 100 checked.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rayclean.config import load_config
from rayclean.evaluate.evaluate import read_truth
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import DROP, NONE_OF_CLASSES, UNKNOWN
from rayclean.storage.given_tables import encode_csv
from rayclean.storage.store import Store


def write_some(folder: Path, num: int, seed: int, target: Path) -> int:
    """Writes key, label and shard of so many rows of a run, drawn by the seed; returns how many there were to draw."""
    run = look(load_config(folder / CONFIG_FILE, ()), Store(str(folder)))
    truth = read_truth(run.catalog)
    known = np.flatnonzero(truth != UNKNOWN)
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:num])
    names, first_rows = (run.catalog.shards[column].to_pylist() for column in ("name", "first_row"))
    shards = np.searchsorted(first_rows, chosen, side="right") - 1
    lines: dict[str, list[str]] = {"key": [], "label": [], "shard": []}
    for shard in np.unique(shards):
        keys = run.catalog.rows_of_shard(int(shard))["key"]
        for row in chosen[shards == shard]:
            lines["key"].append(keys[int(row) - first_rows[shard]].as_py())
            lines["label"].append(DROP if truth[row] == NONE_OF_CLASSES else run.classes.names[truth[row]])
            lines["shard"].append(names[shard])
    target.write_bytes(encode_csv(pa.table({name: pa.array(values, pa.string()) for name, values in lines.items()})))
    return len(known)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write some rows with their truth for merge.verified.")
    parser.add_argument("folder", type=Path, help="of a run whose truth is known")
    parser.add_argument("target", type=Path, help="the CSV file")
    parser.add_argument("--num", type=int, default=100, help="rows (100)")
    parser.add_argument("--seed", type=int, default=0, help="which rows (0)")
    options = parser.parse_args(arguments)
    known = write_some(options.folder, options.num, options.seed, options.target)
    print(f"{options.target}: {min(options.num, known)} of {known} rows")


if __name__ == "__main__":
    main()
