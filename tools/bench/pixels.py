"""What the interpolation stage reads: images decoded, requests and bytes per sample, by order and cache.

    .venv/bin/python tools/bench/pixels.py                            # 100,000 samples, shards on disk
    .venv/bin/python tools/bench/pixels.py --samples 10000 --store    # in an object store on loopback, which counts

The real jobs go from catalog to pairs (a network with drawn weights, L neighbours of the same label); then the images
of each block of pairs are read as the paths stage reads them, without its forwards. `ordered`: the pairs as the stage
has them, by label and ordering cell; `shuffled`: the same pairs in random order, cut into the same blocks. The cache
is the node's, as a share of the decoded set. All figures are a sample.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores.paths_stage import PathsJob
from rayclean.shards import node_cache
from rayclean.shards.write import write_shards
from rayclean.storage.contents import map_arrays
from rayclean.storage.executor import run_inline
from rayclean.storage.units import block_name
from tools.bench.score import run_of, scoring_jobs
from tools.data.make_synthetic import synthetic_samples
from tools.faults.serving import ObjectStore, serving

SIZE = 8


def pairs_in_order(job: PathsJob) -> Array:
    """All pairs (P, 2) in the order of the stage."""
    groups = (map_arrays(job.store, f"{job.pairs_folder}/{block_name(i)}.safetensors") for i in range(job.num_groups))
    return np.concatenate([np.stack([group["left"], group["right"]], axis=1) for group in groups])


def read_blocks(
    run: Run, pairs: Array, block_pairs: int, cache_bytes: int, store: ObjectStore | None
) -> dict[str, float]:
    """Reads the images of all blocks; figures per sample."""
    with _cold_cache():
        pixels = run.catalog.pixels(run.network.spec.size, run.config.data.max_pixels, cache_bytes)
        if store is not None:
            store.counts()
        wanted, started_s = 0, time.perf_counter()
        for start in range(0, len(pairs), block_pairs):
            images = np.unique(pairs[start : start + block_pairs])
            wanted += len(images)
            pixels.read(images)
        seconds = time.perf_counter() - started_s
    counts, rows = {} if store is None else store.counts(), int(run.catalog.num_rows)
    got = counts.get("GET", {"requests": 0, "sent_bytes": 0})
    return {
        "wanted": wanted / rows,
        "decoded": pixels.reader.decoded / rows,
        "hits": 1 - pixels.reader.decoded / wanted,
        "requests": got["requests"] / rows,
        "bytes": got["sent_bytes"] / rows,
        "seconds": seconds,
    }


@contextmanager
def _cold_cache() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, patch.object(node_cache, "node_folder", lambda _: Path(folder)):
        yield


def prepare(options: argparse.Namespace, folder: Path, place: str) -> Run:
    """A run on shards in a folder or bucket, from the catalog to the pairs."""
    samples = synthetic_samples(options.samples, options.classes, SIZE, 0.3, 0, options.factors)
    write_shards(f"{place}/shards", "synthetic", samples, 5000)
    run = run_of(folder, f"{place}/shards/*.tar", options.classes, SIZE, {"iofm": {"num": options.num}})
    for name, jobs in scoring_jobs(run):
        if name == "paths":
            return run
        run_inline(jobs)
    raise AssertionError("unreachable")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count what the interpolation stage reads.")
    parser.add_argument("--samples", type=int, default=100_000, help="(100000)")
    parser.add_argument("--classes", type=int, default=10, help="(10)")
    parser.add_argument("--factors", type=int, default=6, help="dimensions of a class's surface (6)")
    parser.add_argument("--num", type=int, default=10, help="neighbours, L (10)")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4096, 16384], help="pairs of a block (4096 16384)")
    parser.add_argument("--store", action="store_true", help="shards in an object store on loopback")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    with tempfile.TemporaryDirectory() as folder, serving() if options.store else nullcontext() as store:
        run = prepare(options, Path(folder), folder if store is None else store.bucket)
        pairs = pairs_in_order(run.paths(run.walks[-1]))
        shuffled = pairs[np.random.default_rng(0).permutation(len(pairs))]
        set_bytes = run.catalog.num_rows * (SIZE * SIZE * 3 + node_cache.MARK_BYTES)
        member = int(np.mean(run.catalog._columns["size"]))
        print(f"{run.catalog.num_rows:,} rows, {len(pairs):,} pairs at L = {options.num}, a file {member} bytes\n")
        print("| block | order | cache | images wanted | decoded | hits | requests | bytes | seconds |")
        print("|--:|---|--:|--:|--:|--:|--:|--:|--:|")
        for block, (order, those), share in product(
            options.blocks, (("shuffled", shuffled), ("ordered", pairs)), (0.0, 0.1, 1.0)
        ):
            found = read_blocks(run, those, block, int(share * set_bytes), store)
            print(
                f"| {block:,} | {order} | {share:.0%} | {found['wanted']:.2f} | {found['decoded']:.2f} | "
                f"{found['hits']:.0%} | {found['requests']:.3f} | {found['bytes']:,.0f} | {found['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
