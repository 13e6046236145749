"""Flat search against IVF: time of a list, recall, and where IVF begins to pay; results in docs/results/neighbors.md.

    .venv/bin/python tools/bench_neighbors.py
    .venv/bin/python tools/bench_neighbors.py --run RUN --embedding embed-0123abcd

Made features resemble learned ones: ten labels of fifty clusters each in 16 of 64 dimensions, some noise, and one
row in five labelled wrong. Both searches go through the whole choice of lists (`rayclean.neighbors.index`), in the
same process and in turns, so that their ratio stands other work on the machine; times are the best of the turns. The
last columns are a snapshot's worth: a list a row, and what making the IVF index takes beyond the flat one.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np

from rayclean.arrays import Array
from rayclean.catalog.table import COLUMNS_FILE, Catalog
from rayclean.embed.table import Embedding
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.recall import measure
from rayclean.neighbors.select import Neighbors
from rayclean.neighbors.stage import IndexJob
from rayclean.storage.contents import encode, map_arrays
from rayclean.storage.draws import seeded_hash
from rayclean.storage.store import Store
from rayclean.storage.units import run_inline

NUM = 10
LABELS, CLUSTERS, SIGNAL_DIMS, DIMS, WRONG = 10, 50, 16, 64, 0.2
QUERIES, RECALL_QUERIES, TURNS = 2048, 200, 3
NEVER = 2**62
HEADER = (
    "| rows | lists | rows searched | flat, ms a list | IVF, ms a list | flat / IVF | recall@10 | cells probed "
    "| making IVF, s | all lists flat, s | all with IVF, s |"
)


class Query(NamedTuple):
    """One kind of list: its name, the rows searched, the positions asked for, their label (None: any)."""

    name: str
    searched: int
    positions: Array
    label: int | None

    def ask(self, index: NeighborIndex, positions: Array) -> Neighbors:
        """The lists of `positions`."""
        if self.label is None:
            return index.any_label(positions, NUM)
        return index.same_label(self.label, positions, NUM)


class Indexes(NamedTuple):
    """Both indexes of the same rows, and the seconds that IVF's takes to make beyond the flat one's."""

    flat: NeighborIndex
    ivf: NeighborIndex
    making_s: float


def made_features(num_rows: int, seed: int) -> tuple[Array, Array]:
    """Features (N, 64) float16 and given labels (N,) int32."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, LABELS, num_rows)
    label_means = rng.normal(size=(LABELS, 1, SIGNAL_DIMS))
    means = label_means + 0.6 * rng.normal(size=(LABELS, CLUSTERS, SIGNAL_DIMS))
    inner = means[true, rng.integers(0, CLUSTERS, num_rows)] + 0.3 * rng.normal(size=(num_rows, SIGNAL_DIMS))
    basis = np.linalg.qr(rng.normal(size=(DIMS, SIGNAL_DIMS)))[0].T
    features = inner @ basis + 0.05 * rng.normal(size=(num_rows, DIMS))
    wrong = rng.random(num_rows) < WRONG
    return features.astype(np.float16), np.where(wrong, rng.integers(0, LABELS, num_rows), true).astype(np.int32)


def made_catalog(store: Store, labels: Array) -> Catalog:
    """A catalog of rows without images."""
    rows = np.arange(len(labels), dtype=np.uint64)
    columns = {
        "label": labels,
        "by_label": np.argsort(labels, kind="stable"),
        "class_counts": np.bincount(labels),
        "digest": np.stack([rows, rows], axis=1),
        "draw_id": seeded_hash(0, "bench", rows),
    }
    store.publish(f"catalog/{COLUMNS_FILE}", encode(COLUMNS_FILE, columns, "{}"))
    return Catalog(store, "catalog", "bench")


def made_embedding(store: Store, features: Array) -> Embedding:
    """An embedding in one block."""
    store.publish("embed/000000.safetensors", encode(".safetensors", {"features": features}, "{}"))
    return Embedding(store, "embed", len(features), LABELS)


def run_catalog(store: Store) -> Catalog:
    """The catalog of a run."""
    (folder,) = [name for name in store.list("") if name.startswith("catalog-")]
    return Catalog(store, folder, folder)


def run_embedding(store: Store, folder: str, num_classes: int) -> Embedding:
    """An embedding of a run; all its blocks but the last have the first one's size."""
    first = map_arrays(store, f"{folder}/000000.safetensors")
    return Embedding(store, folder, len(first["features"]), num_classes)


def make_indexes(store: Store, catalog: Catalog, embedding: Embedding, part_rows: int, target: float) -> Indexes:
    """A flat index and an IVF one of the same rows."""
    ivf = IndexSettings(None, 0, part_rows, 1, target, True, "cpu")
    flat = dataclasses.replace(ivf, ivf_rows=NEVER)
    flat_s = timed(lambda: run_inline([IndexJob(store, "flat", catalog, embedding, flat)]))
    ivf_s = timed(lambda: run_inline([QuantizerJob(store, "ivf", catalog, embedding, ivf)]))
    ivf_s += timed(lambda: run_inline([IndexJob(store, "ivf", catalog, embedding, ivf)]))
    ivf_s += timed(lambda: run_inline([ProbesJob(store, "ivf", catalog, ivf, NUM)]))
    return Indexes(
        NeighborIndex(store, "flat", catalog, flat), NeighborIndex(store, "ivf", catalog, ivf), ivf_s - flat_s
    )


def queries_of(catalog: Catalog, rng: np.random.Generator) -> list[Query]:
    """As the stages ask: a block of the order by label; a block of rows of all labels."""
    label = int(np.argmax(catalog.class_counts))
    start, stop = catalog.label_range(label)
    every = rng.choice(catalog.num_rows, min(QUERIES, catalog.num_rows), replace=False)
    same = Query("same label", stop - start, np.arange(start, min(start + QUERIES, stop)), label)
    return [same, Query("any label", catalog.num_rows, every, None)]


def line(query: Query, indexes: Indexes, rng: np.random.Generator) -> str:
    """One line of the table."""
    flat_s = ivf_s = float("inf")
    for _ in range(TURNS):
        flat_s = min(flat_s, timed(lambda: query.ask(indexes.flat, query.positions)) / len(query.positions))
        ivf_s = min(ivf_s, timed(lambda: query.ask(indexes.ivf, query.positions)) / len(query.positions))
    sampled = rng.choice(query.positions, min(RECALL_QUERIES, len(query.positions)), replace=False)
    recall = measure(indexes.ivf, sampled, query.ask(indexes.ivf, sampled), query.label).share
    probes = indexes.ivf.probes.any if query.label is None else indexes.ivf.probes.same
    num_rows = indexes.flat.catalog.num_rows
    return (
        f"| {num_rows:,} | {query.name} | {query.searched:,} | {1e3 * flat_s:.3f} | {1e3 * ivf_s:.3f} "
        f"| {flat_s / ivf_s:.1f} | {recall:.3f} | {probes} of {len(indexes.ivf.centroids)} | {indexes.making_s:.1f} "
        f"| {num_rows * flat_s:.1f} | {num_rows * ivf_s + indexes.making_s:.1f} |"
    )


def timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument("--part-rows", type=int, default=100_000)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--run", help="a run's folder, instead of made features")
    parser.add_argument("--embedding", help="its folder embed-...")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    print(HEADER, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|", sep="\n")
    for num_rows in [0] if options.run else options.rows:
        rng = np.random.default_rng(1)
        with tempfile.TemporaryDirectory() as folder:
            made = Store(folder)
            if options.run:
                catalog = run_catalog(Store(options.run))
                embedding = run_embedding(catalog.store, options.embedding, catalog.num_classes)
            else:
                features, labels = made_features(num_rows, seed=0)
                catalog, embedding = made_catalog(made, labels), made_embedding(made, features)
            indexes = make_indexes(made, catalog, embedding, options.part_rows, options.target)
            for query in queries_of(catalog, rng):
                print(line(query, indexes, rng), flush=True)


if __name__ == "__main__":
    main()
