"""How fast scoring is: the interpolation stage against bare forwards, and the whole against the papers' procedure.

    .venv/bin/python tools/bench/score.py stage "demo/digits/*.tar" --size 16
    .venv/bin/python tools/bench/score.py whole "$RAYCLEAN_CIFAR10N/cifar10n-train-*.tar" --samples 2000

`stage` alternates units of paths, in this process on one thread, with the same network run bare on as many images.
`whole` goes from a snapshot to IOFM's scores twice: by the real jobs on two actors over Ray, and by the plain
procedure below on two threads, which walks every path of every sample with H + 1 forwards.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import catalog_mark, find_sources
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.cluster import nodes
from rayclean.cluster.actors import Actors
from rayclean.cluster.connect import connect
from rayclean.cluster.sizing import Workers
from rayclean.config import parse_config
from rayclean.neighbors.stage import AnyLabelJob
from rayclean.run.grow import grow
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.scores.vote_stage import VoteJob
from rayclean.shards.stream import stream_shard
from rayclean.shards.urls import expand_shards
from rayclean.shards.write import write_shards
from rayclean.storage.contents import encode, map_arrays, read_json
from rayclean.storage.executor import Inline, Watcher, run_inline
from rayclean.storage.graph import Graph
from rayclean.storage.store import Store
from rayclean.storage.units import Job, UnitResult, compute_and_publish
from rayclean.train.forward import Forward
from rayclean.train.precision import autocast, resolve_precision
from rayclean.train.snapshots import load_snapshot, publish_weights
from rayclean.train.spec import network_spec

PLAIN_BATCHES = (32, 64, 128, 256, 512)
PROBED_FORWARDS = 4096
TIMING = "timing"
SCORING = ("embed", "neighbors", "pairs", "paths", "interpolate")


def prepare(options: argparse.Namespace, folder: Path, block_rows: int, block_pairs: int) -> Run:
    """A run whose catalog and snapshot are there: what scoring starts from.

    Args:
        options: of the command line.
        folder: for the subset's shards and the run.
        block_rows: rows of a unit.
        block_pairs: pairs of a unit of paths.
    """
    torch.set_num_threads(1)
    samples = (sample for url in expand_shards(options.shards) for sample in _samples(url))
    write_shards(str(folder / "shards"), "subset", islice(samples, options.samples), max(1, options.samples // 4))
    changes: dict[str, dict[str, Any]] = {
        "data": {"label": options.label},
        "model": {"name": options.model, "width": options.width},
        "blocks": {"rows": block_rows, "pairs": block_pairs, "table_rows": 1000 * block_rows},
    }
    shards = str(folder / "shards/*.tar")
    return run_of(folder, shards, options.classes, options.size, changes, options.weights, options.precision)


def run_of(
    folder: Path,
    shards: str,
    classes: int,
    size: int,
    changes: Mapping[str, Mapping[str, Any]],
    weights: str | None = None,
    precision: str = "float32",
) -> Run:
    """A run of IOFM alone whose catalog and snapshot are made in this process.

    Args:
        folder: for the run.
        shards: their pattern.
        classes: how many.
        size: of the images.
        changes: fields of the config by section.
        weights: of the snapshot; None: drawn.
        precision: of the forwards.
    """
    tree: dict[str, Any] = {
        "run": {"dir": str(folder / "run")},
        "data": {"shards": shards, "label": "json:label", "classes": classes, "size": size},
        "train": {"epochs": 0, "from": weights or str(folder / "drawn.safetensors")},
        "scores": ["iofm"],
    }
    for section, fields in changes.items():
        tree[section] = {**tree.get(section, {}), **fields}
    config = parse_config(tree)
    if weights is None:
        publish_weights(Store(str(folder)), "drawn.safetensors", network_spec(config, classes).build())
    precision = resolve_precision(precision, "cpu")
    workers = dict.fromkeys(("cpu", "gpu", "train"), Workers(2, 1, 0, "cpu"))
    store, sources = Store(config.run.dir), find_sources(config.data)
    mark = catalog_mark(config.data, ClassList.load(classes), sources)
    catalog = Catalog(store, f"catalog-{mark}", mark)
    store.create(f"{catalog.folder}/{SOURCES_FILE}", encode(SOURCES_FILE, sources, "{}"))
    run = Run(config, store, catalog, None, workers, (precision, precision))
    Inline().run(lambda: grow(run).up_to("train"))
    return run


def _samples(url: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    for _, key, members in stream_shard(url, None):
        yield key, {extension: members[extension] for extension in members}


def scoring_jobs(run: Run) -> Iterator[tuple[str, list[Job]]]:
    """The steps from the snapshot to its scores; each is to be done before the next is asked for.

    Without the neighbours of any label: they are evidence for people, which the plain procedure does not give.
    """
    for job in grow(run).jobs.values():
        if job.stage in SCORING and not isinstance(job, AnyLabelJob | VoteJob):
            yield job.stage, [job]


@dataclass(frozen=True)
class Round:
    """Images through the network per second.

    Attributes:
        first: by the stage, in a worker that holds none of the unit's images yet.
        later: by the stage, in a worker that does: at all snapshots but the first.
        bare: by the network alone.
    """

    first: float
    later: float
    bare: float


def stage_rounds(run: Run, rounds: int) -> list[Round]:
    """Times units of paths (read, decode, mix, forward, add up, publish) and bare forwards, in turns."""
    nodes.keep_freed_memory()  # as workers do; the bare forwards have it too
    for name, jobs in scoring_jobs(run):
        if name == "paths":
            break
        run_inline(jobs)
    job = run.paths(run.walks[-1])
    units, bare = job.units(), _bare_loop(run)
    result = []
    for i in range(rounds + 1):
        compute = replace(job, catalog=replace(job.catalog)).open()  # a worker that has just started
        rates = []
        for _ in range(2):
            started_s = time.perf_counter()
            forwards = int(compute_and_publish(job, compute, units[i % len(units)], "{}").facts["forwards"])
            rates.append(forwards / (time.perf_counter() - started_s))
        result.append(Round(rates[0], rates[1], forwards / bare(forwards)))
    return result[1:]  # the first one warms all up


def _bare_loop(run: Run) -> Callable[[int], float]:
    """A function that gives the seconds of so many forwards, in batches that are ready in memory."""
    settings, spec = run.network.forward, run.network.spec
    network = load_snapshot(run.store, run.main.trained.snapshots[-1].file, spec).to(memory_format=torch.channels_last)
    pixels = run.catalog.pixels(spec.size, run.config.data.max_pixels)
    rows = np.arange(settings.batch_size) % run.catalog.num_rows
    batch = Forward(network, spec, settings).normalized(pixels.read(rows)).contiguous(memory_format=torch.channels_last)

    def seconds(forwards: int) -> float:
        whole, rest = divmod(forwards, settings.batch_size)
        with torch.inference_mode(), autocast(settings.precision, settings.device):
            started_s = time.perf_counter()
            for _ in range(whole):
                network(batch)
            if rest:
                network(batch[:rest])
            return time.perf_counter() - started_s

    return seconds


@dataclass(frozen=True)
class TimedJob(Job):
    """Another job, with the clock's time at which each unit starts and ends written beside it."""

    stage: ClassVar[str] = "timed"
    job: Job

    def units(self) -> Sequence[str]:
        """Those of the job."""
        return self.job.units()

    def beside(self, unit: str) -> Sequence[str]:
        """The job's, and the times."""
        return [*self.job.beside(unit), f"{TIMING}/{unit}.json"]

    def open(self) -> Callable[[str], UnitResult]:
        """Opens the job; that counts as work of its first unit."""
        opened_s = [time.time()]
        inner = self.job.open()

        def compute(unit: str) -> UnitResult:
            started_s = opened_s.pop() if opened_s else time.time()
            result = inner(unit)
            beside = {**result.beside, f"{TIMING}/{unit}.json": [started_s, time.time()]}
            return UnitResult(result.content, beside, result.rows, result.facts)

        return compute

    def span_s(self) -> float:
        """From the start of the first unit to the end of the last."""
        times = [read_json(self.store, f"{self.folder}/{TIMING}/{unit}.json") for unit in self.units()]
        return float(max(stop for _, stop in times) - min(start for start, _ in times))


Compute = Callable[[Sequence[Job]], None]


def compute_on_ray(run: Run) -> Compute:
    """Computes jobs as the product does."""

    def compute(jobs: Sequence[Job]) -> None:
        graph = Graph()
        graph.want(*jobs)
        with Actors(run.workers, mix_allowed=False) as executor:
            reports = executor.run(lambda: graph, Watcher())
        if failed := [error for report in reports for error in report.failed.values()]:
            raise SystemExit(f"units failed: {failed[0]}")

    return compute


@dataclass(frozen=True)
class Product:
    """What the real jobs gave.

    Attributes:
        score: (N,) float64 IOFM at the snapshot.
        work_s: by step, from the first unit's start to the last one's end.
        wall_s: all steps with the start and end of their actors.
        forwards: images through the network.
    """

    score: Array
    work_s: dict[str, float]
    wall_s: float
    forwards: int


def score_by_jobs(run: Run, compute: Compute) -> Product:
    """From the snapshot to its scores by the real jobs."""
    work_s: dict[str, float] = {}
    started_s = time.perf_counter()
    for name, jobs in scoring_jobs(run):
        timed = [TimedJob(job.store, job.folder, job) for job in jobs if job.units()]
        compute(timed)
        work_s[name] = work_s.get(name, 0.0) + sum(job.span_s() for job in timed)
    wall_s = time.perf_counter() - started_s
    scores = run.interpolate(run.walks[-1])
    parts = [map_arrays(run.store, scores.file(unit))["score"] for unit in scores.units()]
    pairs = run.pairs(run.walks[-1])
    num_pairs = sum(len(map_arrays(run.store, pairs.file(unit))["left"]) for unit in pairs.units())
    forwards = run.catalog.num_rows + num_pairs * (run.config.iofm.steps - 1)
    return Product(np.concatenate(parts), work_s, wall_s, forwards)


@dataclass(frozen=True)
class Plain:
    """The papers' procedure as one would write it in one file.

    Attributes:
        probabilities: (B, 3, S, S) float32 images to (B, K) float32, in the product's precision.
        features: (N, 3, S, S) images to (N, d) float16, rounded as the product stores them.
        num: L.
        steps: H.
    """

    probabilities: Callable[[torch.Tensor], torch.Tensor]
    features: Callable[[torch.Tensor], torch.Tensor]
    num: int
    steps: int

    def neighbors(self, images: torch.Tensor, labels: Array, digests: Array) -> Array:
        """(N, L) rows of the nearest of the same label, by brute force in float64; no exact copies."""
        features = self.features(images).double()
        result = np.empty((len(labels), self.num), np.int64)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            distances = torch.cdist(features[rows], features[rows]).numpy()
            copies = (digests[rows][:, None] == digests[rows][None]).all(axis=-1)  # each is a copy of itself
            distances[copies] = np.inf
            result[rows] = rows[np.argsort(distances, axis=1, kind="stable")[:, : self.num]]
        return result

    def paths(self, images: torch.Tensor, labels: Array, neighbors: Array, batch_size: int) -> Array:
        """(N,) float64: the trapezoid mean at the given label over all points of all L paths of each sample."""
        start = torch.arange(len(neighbors)).repeat_interleave(self.num * (self.steps + 1))
        end = torch.from_numpy(neighbors).flatten().repeat_interleave(self.steps + 1)
        share = (torch.arange(len(start)) % (self.steps + 1)) / self.steps
        given = torch.from_numpy(labels.astype(np.int64))[start]
        values = []
        for i in range(0, len(start), batch_size):
            here = slice(i, i + batch_size)
            mixed = torch.lerp(images[start[here]], images[end[here]], share[here, None, None, None])
            values.append(self.probabilities(mixed).gather(1, given[here, None])[:, 0])
        weights = np.r_[0.5, np.ones(self.steps - 1), 0.5] / self.steps
        points = torch.cat(values).double().numpy().reshape(len(neighbors), self.num, self.steps + 1)
        result: Array = (points @ weights).mean(axis=1)
        return result


def plain_procedure(run: Run, batch_size: int | None) -> tuple[Array, float, int]:
    """Scores of all samples by the plain procedure.

    Args:
        run: its catalog and its snapshot.
        batch_size: images per forward; None takes the fastest of `PLAIN_BATCHES`, tried before the clock starts.

    Returns:
        (N,) float64 scores, seconds, batch size.
    """
    spec, settings, labels = run.network.spec, run.network.forward, np.array(run.catalog.label)
    network = load_snapshot(run.store, run.main.trained.snapshots[-1].file, spec).to(memory_format=torch.channels_last)

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(network(images).float(), dim=1)

    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([network.features(batch) for batch in torch.split(images, settings.batch_size)]).half()

    plain = Plain(probabilities, features, run.config.iofm.num, run.config.iofm.steps)
    prepared = Forward(network, spec, settings)
    with torch.inference_mode(), autocast(settings.precision, "cpu"):
        pixels = run.catalog.pixels(spec.size, run.config.data.max_pixels)
        if batch_size is None:
            batch_size = _best_batch(probabilities, prepared.normalized(pixels.read(np.arange(64))))
        started_s = time.perf_counter()
        images = prepared.normalized(pixels.read(np.arange(len(labels))))
        neighbors = plain.neighbors(images, labels, run.catalog.digest)
        scores = plain.paths(images, labels, neighbors, batch_size)
        return scores, time.perf_counter() - started_s, batch_size


def _best_batch(probabilities: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> int:
    def seconds(size: int) -> float:
        batch = images[torch.arange(size) % len(images)]
        probabilities(batch)
        started_s = time.perf_counter()
        for _ in range(PROBED_FORWARDS // size):
            probabilities(batch)
        return time.perf_counter() - started_s

    return min(PLAIN_BATCHES, key=seconds)


def report_stage(options: argparse.Namespace, folder: Path) -> None:
    """Prints what `stage` finds."""
    run = prepare(options, folder, block_rows=4000, block_pairs=4096)
    rounds = stage_rounds(run, options.rounds)
    print(f"{run.precision[1]}, batches of {run.network.forward.batch_size}, 1 thread, {len(rounds)} rounds; medians")
    print(f"bare forwards     {statistics.median(each.bare for each in rounds):7,.0f} images/s")
    for text, kind in (("first snapshot", "first"), ("later snapshots", "later")):
        rate = statistics.median(getattr(each, kind) for each in rounds)
        ratios = sorted(getattr(each, kind) / each.bare for each in rounds)
        quarter = len(ratios) // 4
        middle = f"middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
        print(f"{text:17} {rate:7,.0f} images/s, {statistics.median(ratios):.3f} of bare ({middle})")


def report_whole(options: argparse.Namespace, folder: Path) -> None:
    """Prints what `whole` finds."""
    run = prepare(options, folder, block_rows=500, block_pairs=1024)
    started_s = time.perf_counter()
    with connect():
        ray_s = time.perf_counter() - started_s
        product = score_by_jobs(run, compute_on_ray(run))
    torch.set_num_threads(2)
    scores, plain_s, batch_size = plain_procedure(run, None)
    work_s = sum(product.work_s.values())
    num, steps, rows = run.config.iofm.num, run.config.iofm.steps, run.catalog.num_rows
    print(f"{rows} samples, {run.precision[1]}, H={steps}, L={num}")
    print(f"plain, 2 threads, batches of {batch_size}: {plain_s:.2f} s, {rows * num * (steps + 1) + rows} forwards")
    steps_text = ", ".join(f"{name} {seconds:.2f}" for name, seconds in product.work_s.items())
    print(f"rayclean, 2 actors: {work_s:.2f} s ({steps_text}), {product.forwards} forwards")
    print(f"  beside it, Ray's start {ray_s:.2f} s, start and end of the steps' actors {product.wall_s - work_s:.2f} s")
    print(f"  rayclean is {plain_s / work_s:.2f} times as fast")
    difference = np.abs(product.score - scores)
    print(f"largest difference of a score {difference.max():.2e}, median {np.median(difference):.2e}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Time scoring against bare forwards, or against the plain procedure.")
    parser.add_argument("what", choices=("stage", "whole"))
    parser.add_argument("shards", help="a glob of shards")
    parser.add_argument("--samples", type=int, default=2000, help="the first so many (2000)")
    parser.add_argument("--label", default="json:label", help="as data.label (json:label)")
    parser.add_argument("--classes", type=int, default=10, help="how many (10)")
    parser.add_argument("--size", type=int, default=32, help="side of the images (32)")
    parser.add_argument("--model", default="small_resnet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--weights", help="a snapshot, or a run's folder; without it weights are drawn")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=15, help="of stage (15)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = report_stage if options.what == "stage" else report_whole
        report(options, Path(folder))


if __name__ == "__main__":
    main()
