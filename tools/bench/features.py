"""How a run on features grows: the same run on made features of two sizes, work and memory per row by stage.

    .venv/bin/python tools/bench/features.py /elsewhere --small 100000 --large 1000000
    .venv/bin/python tools/bench/features.py /elsewhere --small 10000 --large 20000 --classes 1000

Features are 64 clusters per class in 24 dimensions with unit noise, turned into 768; a fifth of the labels is another
class's. They lie as clip-retrieval writes them, beside shards that hold labels alone. What is there is not made or run
again. Where a stage's work per row stays the same the ratio is 1; the search of neighbours, which need not, is a stage
of its own, and its recall is said. The figures of each size are kept in FOLDER/figures-ROWS.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rayclean.schema import Array
from rayclean.shards.write import write_shards
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from tools.bench.scaling import Size, Stage, compare, watch

CLUSTERS, INNER, APART, WRONG = 64, 24, 3.0, 0.2
SHARD_ROWS, FILE_ROWS = 10_000, 50_000


class Made:
    """Features and labels, block by block: the same whatever the blocks.

    Args:
        num_classes: K.
        dim: d.
        seed: of all of it.
    """

    def __init__(self, num_classes: int, dim: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.num_classes = seed, num_classes
        self.centres = APART * rng.standard_normal((num_classes, CLUSTERS, INNER), np.float32)
        self.turn = np.linalg.qr(rng.standard_normal((dim, INNER)))[0].T.astype(np.float32)

    def block(self, index: int, num: int) -> tuple[Array, Array, Array]:
        """(num, d) float16 features, (num,) given labels and (num,) true ones of a block of rows."""
        rng = np.random.default_rng([self.seed, index])
        truth = rng.integers(0, self.num_classes, num)
        inner = self.centres[truth, rng.integers(0, CLUSTERS, num)]
        inner += rng.standard_normal((num, INNER), np.float32)
        other = (truth + rng.integers(1, max(self.num_classes, 2), num)) % self.num_classes
        labels = np.where(rng.random(num) < WRONG, other, truth)
        return (inner @ self.turn).astype(np.float16), labels, truth


def make(folder: Path, made: Made, num_rows: int) -> None:
    """Writes features, and shards of labels; what is there is left as it is."""
    if (folder / "made").exists():
        return
    (folder / "emb/img_emb").mkdir(parents=True, exist_ok=True)
    (folder / "emb/metadata").mkdir(exist_ok=True)

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for index, start in enumerate(range(0, num_rows, FILE_ROWS)):
            features, labels, truth = made.block(index, min(FILE_ROWS, num_rows - start))
            keys = [f"{start + row:09d}" for row in range(len(labels))]
            np.save(folder / f"emb/img_emb/img_emb_{index}.npy", features)
            pq.write_table(pa.table({"key": keys}), folder / f"emb/metadata/metadata_{index}.parquet")
            for key, label, true in zip(keys, labels.tolist(), truth.tolist(), strict=True):
                yield key, {"cls": str(label).encode(), "truth": str(true).encode()}

    write_shards(str(folder / "shards"), "made", samples(), SHARD_ROWS)
    (folder / "made").touch()


def run_size(folder: Path, num_rows: int, num_classes: int, dim: int, seed: int) -> Size:
    """Makes what is not there, does the run and reads its records."""
    name = f"{num_rows}-{num_classes}-{dim}"
    figures, place = folder / f"figures-{name}.json", folder / name
    if figures.exists():
        found = json.loads(figures.read_text())
        return Size(**found | {"stages": {stage: Stage(**each) for stage, each in found["stages"].items()}})
    make(place, Made(num_classes, dim, seed), num_rows)
    config = {
        "run": {"dir": str(place / "run"), "seed": seed},
        "data": {
            "shards": str(place / "shards/*.tar"),
            "features": f"clip-retrieval:{place / 'emb'}",
            "image": "none",
            "truth": "truth",
            "classes": num_classes,
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    size = watch([str(place / "config.yaml")], num_rows, Store(str(place / "run")))
    figures.write_text(json.dumps(asdict(size)))
    return size


def recall(folder: Path, num_rows: int, num_classes: int, dim: int) -> float:
    """Of the lists of neighbours that a run has made."""
    store = Store(str(folder / f"{num_rows}-{num_classes}-{dim}/run"))
    hits = wanted = 0.0
    for name in store.list("record"):
        if name.startswith("neighbors-"):
            for entry in read_json(store, f"record/{name}"):
                hits += entry["facts"].get("recall_hits", 0)
                wanted += entry["facts"].get("recall_wanted", 0)
    return hits / wanted if wanted else 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where features, runs and figures lie; some 8 bytes per number")
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    shape = options.classes, options.dim
    load = os.getloadavg()[0]
    sizes = [run_size(options.folder, rows, *shape, options.seed) for rows in (options.small, options.large)]
    print("\n".join(compare(*sizes)))
    found = ", ".join(f"{recall(options.folder, size.rows, *shape):.3f} of {size.rows:,}" for size in sizes)
    print(f"\nrecall of neighbours: {found}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
