"""Flat search against IVF: time of a list, recall, and where IVF begins to pay; results in docs/results/neighbors.md.

    .venv/bin/python tools/bench/neighbors.py
    .venv/bin/python tools/bench/neighbors.py --labels 1 --dim 128 --rows 1000000 --queries 256
    .venv/bin/python tools/bench/neighbors.py --run RUN --embedding embed-0123abcd

Made features resemble learned ones: labels of fifty clusters each in 16 of all dimensions, some noise, and one row in
five labelled wrong. Both searches go through the whole choice of lists (`rayclean.neighbors.index`), in the same
process and in turns, so that their ratio stands other work on the machine; times are the best of the turns. The last
columns are a snapshot's worth: one list per row, and what making the IVF index takes beyond the flat one.

A second table has the sizes of the files, and the memory of processes that do nothing but make an index, or search
it: their peak, what they hold of their own, and what they map of the files and have touched of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import psutil

from rayclean.catalog.table import COLUMNS_FILE, Catalog
from rayclean.embed.table import Embedding
from rayclean.neighbors.index import IndexSettings, NeighborIndex
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.recall import measure
from rayclean.neighbors.select import Neighbors
from rayclean.neighbors.stage import IndexJob
from rayclean.schema import Array
from rayclean.storage.contents import encode, map_arrays
from rayclean.storage.draws import seeded_hash
from rayclean.storage.executor import run_inline
from rayclean.storage.store import Store

NUM = 10
CLUSTERS, SIGNAL_DIMS, WRONG = 50, 16, 0.2
RECALL_QUERIES, MEMORY_QUERIES, TURNS = 200, 128, 3
NEVER = 2**62
MB = 1e6
INDEX_FILES = (".safetensors", ".faiss")
HEADER = (
    "| rows | lists | rows searched | flat, ms per list | IVF, ms per list | flat / IVF | recall@10 | cells probed "
    "| making IVF, s | all lists flat, s | all with IVF, s |"
)
MEMORY_HEADER = (
    "| rows | index | features, MB | lists, MB | making, s | making: peak, MB | searching: peak, MB | own | mapped "
    "| touched |"
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


class Use(NamedTuple):
    """What a process of its own took for some work, its imports left out but for the peak."""

    seconds: float
    peak_bytes: int  # resident, with the pages of mapped files
    own_bytes: int  # held at the end in memory that no file backs
    mapped_bytes: int  # of the index's parts
    touched_bytes: int  # of these, the pages that are resident


class Indexes(NamedTuple):
    """Both indexes of the same rows, and what making them took."""

    flat: NeighborIndex
    ivf: NeighborIndex
    flat_making: Use
    ivf_making: Use

    @property
    def making_s(self) -> float:
        """What IVF's takes beyond the flat one's."""
        return self.ivf_making.seconds - self.flat_making.seconds


def made_features(num_rows: int, seed: int, num_labels: int, dim: int) -> tuple[Array, Array]:
    """Features (N, dim) float16 and given labels (N,) int32."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, num_labels, num_rows)
    label_means = rng.normal(size=(num_labels, 1, SIGNAL_DIMS))
    means = label_means + 0.6 * rng.normal(size=(num_labels, CLUSTERS, SIGNAL_DIMS))
    inner = means[true, rng.integers(0, CLUSTERS, num_rows)] + 0.3 * rng.normal(size=(num_rows, SIGNAL_DIMS))
    basis = np.linalg.qr(rng.normal(size=(dim, SIGNAL_DIMS)))[0].T
    features = inner @ basis + 0.05 * rng.normal(size=(num_rows, dim))
    wrong = rng.random(num_rows) < WRONG
    return features.astype(np.float16), np.where(wrong, rng.integers(0, num_labels, num_rows), true).astype(np.int32)


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


def made_embedding(store: Store, features: Array, num_labels: int) -> Embedding:
    """An embedding in one block."""
    store.publish("embed/000000.safetensors", encode(".safetensors", {"features": features}, "{}"))
    return Embedding(store, "embed", len(features), num_labels)


def run_catalog(store: Store) -> Catalog:
    """The catalog of a run."""
    (folder,) = [name for name in store.list("") if name.startswith("catalog-")]
    return Catalog(store, folder, folder)


def run_embedding(store: Store, folder: str, num_classes: int) -> Embedding:
    """An embedding of a run; all its blocks but the last have the first one's size."""
    first = map_arrays(store, f"{folder}/000000.safetensors")
    return Embedding(store, folder, len(first["features"]), num_classes)


def make_indexes(store: Store, catalog: Catalog, embedding: Embedding, part_rows: int, target: float) -> Indexes:
    """A flat index and an IVF one of the same rows, each made by a process of its own."""
    ivf = IndexSettings(None, 0, part_rows, 1, target, catalog.num_classes > 1, "cpu")
    flat = dataclasses.replace(ivf, ivf_rows=NEVER)
    flat_making, ivf_making = (
        in_child(_make, store, folder, catalog, embedding, settings)
        for folder, settings in (("flat", flat), ("ivf", ivf))
    )
    return Indexes(
        NeighborIndex(store, "flat", catalog, flat),
        NeighborIndex(store, "ivf", catalog, ivf),
        flat_making,
        ivf_making,
    )


def _make(store: Store, folder: str, catalog: Catalog, embedding: Embedding, settings: IndexSettings) -> None:
    for jobs in (
        [QuantizerJob(store, folder, catalog, embedding, settings)],
        [IndexJob(store, folder, catalog, embedding, settings)],
        [ProbesJob(store, folder, catalog, settings, NUM)],
    ):
        run_inline(jobs)  # a job of a flat index has no unit but its parts


def _search(store: Store, folder: str, catalog: Catalog, settings: IndexSettings, query: Query) -> NeighborIndex:
    index = NeighborIndex(store, folder, catalog, settings)
    query.ask(index, query.positions)
    return index


def in_child(work: Callable[..., object], *args: object) -> Use:
    """Does some work in a new process of one thread."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_watched, work, args).result()


def _watched(work: Callable[..., object], args: tuple[object, ...]) -> Use:
    faiss.omp_set_num_threads(1)
    before = _status("RssAnon")
    started_s = time.perf_counter()
    kept = work(*args)  # what it returns stays mapped and held until all is read off
    seconds = time.perf_counter() - started_s
    maps = [each for each in psutil.Process().memory_maps(grouped=False) if "/parts/" in each.path]
    mapped, touched = sum(each.size for each in maps), sum(each.rss for each in maps)
    use = Use(seconds, _status("VmHWM"), _status("RssAnon") - before, mapped, touched)
    del kept
    return use


def _status(name: str) -> int:
    """A size in bytes of this process, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def queries_of(catalog: Catalog, num: int, rng: np.random.Generator) -> list[Query]:
    """As the stages ask: a block of the order by label; a block of rows of all labels, where there is more than one."""
    label = int(np.argmax(catalog.class_counts))
    start, stop = catalog.label_range(label)
    every = rng.choice(catalog.num_rows, min(num, catalog.num_rows), replace=False)
    same = Query("same label", stop - start, np.arange(start, min(start + num, stop)), label)
    return [same, Query("any label", catalog.num_rows, every, None)][: catalog.num_classes]


def memory_lines(query: Query, indexes: Indexes) -> list[str]:
    """Two lines of the second table: what each index takes on disk, and processes that make or search it."""
    lines = []
    few = query._replace(positions=query.positions[:MEMORY_QUERIES])
    for name, index, making in (
        ("flat", indexes.flat, indexes.flat_making),
        ("IVF", indexes.ivf, indexes.ivf_making),
    ):
        store, folder = index.files.store, index.files.folder
        features, lists = (
            sum(path.stat().st_size for path in Path(store.full(folder)).rglob(f"*{suffix}")) for suffix in INDEX_FILES
        )
        use = in_child(_search, store, folder, index.catalog, index.settings, few)
        lines.append(
            f"| {index.catalog.num_rows:,} | {name} | {features / MB:,.0f} | {lists / MB:,.0f} "
            f"| {making.seconds:.1f} | {making.peak_bytes / MB:,.0f} | {use.peak_bytes / MB:,.0f} "
            f"| {use.own_bytes / MB:,.0f} | {use.mapped_bytes / MB:,.0f} | {use.touched_bytes / MB:,.0f} |"
        )
    return lines


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument("--labels", type=int, default=10, help="of made features (10)")
    parser.add_argument("--dim", type=int, default=64, help="of made features (64)")
    parser.add_argument("--queries", type=int, default=2048, help="lists that are timed (2048)")
    parser.add_argument("--part-rows", type=int, default=100_000)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--run", help="a run's folder, instead of made features")
    parser.add_argument("--embedding", help="its folder embed-...")
    options = parser.parse_args(arguments)
    faiss.omp_set_num_threads(1)
    print(HEADER, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|", sep="\n")
    memory: list[str] = []
    for num_rows in [0] if options.run else options.rows:
        rng = np.random.default_rng(1)
        with tempfile.TemporaryDirectory() as folder:
            made = Store(folder)
            if options.run:
                catalog = run_catalog(Store(options.run))
                embedding = run_embedding(catalog.store, options.embedding, catalog.num_classes)
            else:
                features, labels = made_features(num_rows, 0, options.labels, options.dim)
                catalog, embedding = made_catalog(made, labels), made_embedding(made, features, options.labels)
                del features
            indexes = make_indexes(made, catalog, embedding, options.part_rows, options.target)
            queries = queries_of(catalog, options.queries, rng)
            for query in queries:
                print(line(query, indexes, rng), flush=True)
            memory += memory_lines(queries[-1], indexes)
    print("", MEMORY_HEADER, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|", *memory, sep="\n")


if __name__ == "__main__":
    main()
