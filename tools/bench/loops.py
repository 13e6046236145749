"""How fast the product's loops are beside bare ones: reading shards, embedding, training.

    OMP_NUM_THREADS=1 .venv/bin/python tools/bench/loops.py reader
    OMP_NUM_THREADS=1 .venv/bin/python tools/bench/loops.py embed "$RAYCLEAN_CIFAR10N/cifar10n-train-*.tar"
    OMP_NUM_THREADS=1 .venv/bin/python tools/bench/loops.py train "$RAYCLEAN_CIFAR10N/cifar10n-train-*.tar" [--ray]

Without shards synthetic ones are made. What is compared takes turns on one thread of one process, but for Ray Data,
which reads in a process of its own. Rates are medians of the turns; ratios are those of each turn, their median and
their middle half: by the clock, and by the time of CPUs, which other work on the machine disturbs less. The first
turn warms all up and does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import ray
import ray.data
import ray.train
import torch
import torch.distributed as dist
import webdataset
from ray.train.torch import TorchConfig, TorchTrainer

from rayclean.catalog.table import Catalog
from rayclean.cluster import nodes, trainer
from rayclean.cluster.connect import connect
from rayclean.config import TrainSection
from rayclean.run.run import Run
from rayclean.schema import Array
from rayclean.shards.decode import fit_image
from rayclean.shards.urls import expand_shards
from rayclean.shards.write import write_shards
from rayclean.storage.resume import CHECKPOINTS, Resume
from rayclean.storage.units import Job, UnitResult, compute_and_publish
from rayclean.train import worker
from rayclean.train.augment import augment_float, augment_uint8, normalize
from rayclean.train.feed import Feed, FeedSettings, stream_rows
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank, State
from rayclean.train.losses import training_loss
from rayclean.train.precision import autocast
from rayclean.train.snapshots import load_snapshot
from rayclean.train.worker import TrainTask
from tools.bench.score import run_of
from tools.data.make_synthetic import synthetic_samples

SHARD_SAMPLES = 2500
BARE, PLAIN, RAY_DATA = "bare forwards", "plain", "ray.data.read_webdataset"
IMAGES = ("png", "jpg", "jpeg", "webp")
Report = Callable[[int, State | None], None]


class Spent(NamedTuple):
    """Seconds by the clock, and of CPUs by all threads of this process."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Spent:
        """Since some time in the past."""
        return cls(time.perf_counter(), time.process_time())

    def minus(self, other: Spent) -> Spent:
        """What is left without another."""
        return Spent(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


class Pass(NamedTuple):
    """What a loop did in one turn: samples, and what they took."""

    rows: int
    spent: Spent

    def per_s(self, kind: int) -> float:
        """Samples per second, by the clock (0) or of CPUs (1)."""
        return self.rows / self.spent[kind]


Turn = dict[str, Pass]  # by loop


def timed(loop: Callable[[], int]) -> Pass:
    """One pass of a loop that says how many samples it did."""
    start = Spent.now()
    count = loop()
    return Pass(count, Spent.now().minus(start))


def table(turns: Sequence[Turn], bare: str, apart: Sequence[str] = ()) -> str:
    """One line per loop: its rate, and what share of the rate of `bare` it reaches, by the clock and by CPU time.

    Args:
        turns: one or more.
        bare: the loop that others are compared with.
        apart: loops whose work other processes do, of whose CPU time nothing is known.
    """
    lines = [f"| loop | samples/s | of {bare} (middle half) | by CPU time |", "|---|--:|--:|--:|"]
    for name in turns[0]:
        rate = statistics.median(turn[name].per_s(0) for turn in turns)
        shares = [_share([turn[name].per_s(kind) / turn[bare].per_s(kind) for turn in turns]) for kind in (0, 1)]
        found = "1 | 1" if name == bare else f"{shares[0]} | {'' if name in apart else shares[1]}"
        lines.append(f"| {name} | {rate:,.0f} | {found} |")
    return "\n".join(lines)


def _share(ratios: list[float]) -> str:
    ratios, quarter = sorted(ratios), len(ratios) // 4
    return f"{statistics.median(ratios):.2f} ({ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})"


def read_streamed(catalog: Catalog, size: int) -> Iterator[Array]:
    """All images as training streams them: the catalog's tar reader, its rows, our decoder."""
    settings = FeedSettings(size, 1e9, 0, 1, 1, 0)
    for shard in range(catalog.shards.num_rows):
        yield from (image for _, image in stream_rows(catalog, shard, settings))


def read_webdataset(urls: list[str], size: int) -> Iterator[Array]:
    """All images by WebDataset alone."""
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"):
        yield fit_image(next(sample[name] for name in IMAGES if name in sample), size)


def read_ray(urls: list[str], size: int, batch_size: int = 128) -> Iterator[Array]:
    """All images by Ray Data."""

    def fit(sample: dict[str, Any]) -> dict[str, Any]:
        name = next(name for name in IMAGES if name in sample)
        return {"image": fit_image(sample[name], size)}

    for batch in ray.data.read_webdataset(urls, decoder=[True, fit]).iter_batches(batch_size=batch_size):
        yield from batch["image"]


def reader_turns(run: Run, urls: list[str], turns: int, with_ray: bool) -> list[Turn]:
    """Times a pass over all shards by each reader."""
    size = run.network.task.spec.size
    readers: dict[str, Callable[[], Iterator[Array]]] = {
        "webdataset": lambda: read_webdataset(urls, size),
        "rayclean": lambda: read_streamed(run.catalog, size),
        "rayclean, batches through the shuffle buffer": lambda: _read_batches(run.catalog, size),
    }
    if with_ray:
        readers[RAY_DATA] = lambda: read_ray(urls, size)
    found = [{name: timed(partial(_count, read)) for name, read in readers.items()} for _ in range(turns + 1)]
    return found[1:]


def _read_batches(catalog: Catalog, size: int) -> Iterator[Array]:
    feed = Feed(catalog, FeedSettings(size, 1e9, 0, 1000, 128, 0), 0, 1)
    for images, _, _ in feed.batches(1):
        yield from images


def _count(read: Callable[[], Iterator[Array]]) -> int:
    return sum(1 for _ in read())


def embed_turns(run: Run, turns: int) -> list[Turn]:
    """Times a unit of the embedding (read, decode, normalise, forward, encode, publish) and as many bare forwards.

    A worker that has done another unit does one whose images the node does not keep yet, then the same again.
    """
    nodes.keep_freed_memory()  # as workers do; the bare forwards have it too
    job = run.network.embed(run.main.last)
    first, *units = job.units()
    bare, found = _bare_forwards(run), []
    for i in range(turns + 1):
        with _no_node_cache():
            compute = replace(job, catalog=replace(job.catalog)).open()
            compute_and_publish(job, compute, first, "{}")
            unit = partial(_compute, job, compute, units[i % len(units)])
            cold, warm = timed(unit), timed(unit)
        beside = timed(partial(bare, cold.rows))
        found.append({BARE: beside, "rayclean, cold image cache": cold, "rayclean, warm image cache": warm})
    return found[1:]


def _compute(job: Job, compute: Callable[[str], UnitResult], unit: str) -> int:
    return compute_and_publish(job, compute, unit, "{}").rows


@contextmanager
def _no_node_cache() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, patch.object(tempfile, "tempdir", folder):
        yield


def _bare_forwards(run: Run) -> Callable[[int], int]:
    """A loop of so many forwards, on one batch that is ready in memory."""
    settings, spec = run.network.forward, run.network.spec
    network = load_snapshot(run.store, run.main.last.file, spec).to(memory_format=torch.channels_last)
    rows = np.arange(settings.batch_size) % run.catalog.num_rows
    pixels = run.catalog.pixels(spec.size, run.config.data.max_pixels).read(rows)
    batch = Forward(network, spec, settings).normalized(pixels).contiguous(memory_format=torch.channels_last)

    def loop(count: int) -> int:
        with torch.inference_mode(), autocast(settings.precision, settings.device):
            for start in range(0, count, settings.batch_size):
                network(batch[: count - start])
        return count

    return loop


class Plain:
    """The training loop as one would write it in one file, on images in memory.

    Args:
        task: what the product trains; network, optimizer, schedule, augmentation, loss and batches are the same.
        images: (N, size, size, 3) uint8.
        labels: (N,) int64.
        wrap: what the network is trained in, such as DistributedDataParallel.
    """

    def __init__(
        self,
        task: TrainTask,
        images: torch.Tensor,
        labels: torch.Tensor,
        wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network,
    ) -> None:
        self.task, self.images, self.labels = task, images, labels
        network = task.spec.build(task.feed.seed).to(memory_format=torch.channels_last)
        self.network, train = wrap(network), task.train
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), train.lr, train.momentum, weight_decay=train.weight_decay, nesterov=True
        )
        self.steps = -(-len(images) // train.batch_size)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, train.epochs * self.steps)

    def epoch(self, order: torch.Tensor, generator: torch.Generator) -> int:
        """Trains on all rows, in the given order; returns their number."""
        train, spec = self.task.train, self.task.spec
        self.network.train()
        for rows in torch.tensor_split(order, self.steps):
            pixels = augment_uint8(self.images[rows], train.augment, generator)
            inputs = augment_float(normalize(pixels, spec.mean, spec.std), train.augment, generator)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad()
            with autocast(self.task.precision, "cpu"):
                loss = training_loss(train.loss, self.network, inputs, self.labels[rows], train.mixup_alpha, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
        return len(order)


def train_turns(task: TrainTask, report: Report | None = None) -> list[Turn]:
    """Trains the product's way and, at the end of each epoch, the plain way, without DDP and in it.

    Args:
        task: of as many epochs as there are turns, and one to warm up.
        report: what the product does with the state after an epoch.
    """
    nodes.keep_freed_memory()  # as Ray Train's worker does; the plain loops have it too
    torch.set_num_threads(1)
    feed = Feed(task.catalog, task.feed, 0, 1)
    images = torch.from_numpy(feed.images(np.arange(task.catalog.num_rows)))
    labels = torch.from_numpy(task.catalog.label.astype(np.int64))
    ddp = torch.nn.parallel.DistributedDataParallel
    loops = {PLAIN: Plain(task, images, labels), f"{PLAIN} in DDP": Plain(task, images, labels, ddp)}
    generator, found = torch.Generator().manual_seed(0), list[Turn]()
    evaluate, evaluation, start = worker.write_trajectories, Spent(0, 0), Spent.now()

    def timed_evaluate(*args: Any) -> None:
        nonlocal evaluation
        begun = Spent.now()
        evaluate(*args)
        evaluation = Spent.now().minus(begun)

    def end_of_epoch(epoch: int, state: State | None) -> None:
        nonlocal start
        whole = Spent.now().minus(start)
        product = {"steps alone": whole.minus(evaluation), "with the evaluation": whole}
        if report is not None:
            report(epoch, state)
            product["and with the report to Ray Train"] = Spent.now().minus(start)
        turn = {}
        torch.use_deterministic_algorithms(False)  # the product's choice, not a plain loop's
        for name, loop in loops.items():
            order = torch.randperm(len(images), generator=generator)
            turn[name] = timed(partial(loop.epoch, order, generator))
        torch.use_deterministic_algorithms(True)
        found.append({**turn, **{f"rayclean, {name}": Pass(len(images), spent) for name, spent in product.items()}})
        start = Spent.now()

    with patch.object(worker, "write_trajectories", timed_evaluate):
        worker.train(task, Rank(0, 1), Resume(), end_of_epoch)
    return found[1:]


@contextmanager
def one_process_group() -> Iterator[None]:
    """A gloo group of this process alone, which DDP asks for."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def train_turns_on_ray(task: TrainTask) -> list[Turn]:
    """As `train_turns`, in a worker of Ray Train to which the product reports its checkpoints."""
    fitted = TorchTrainer(
        _train_on_worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=CHECKPOINTS,
            storage_path=task.store.full(task.folder),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
        ),
    )
    turns: list[Turn] = fitted.fit().return_value
    return turns


def _train_on_worker(config: dict[str, Any]) -> list[Turn]:
    return train_turns(config["task"], trainer._report)


def train_task(run: Run, turns: int) -> TrainTask:
    """The default training of a run's rows, one epoch per turn and one more."""
    return replace(run.network.task, folder="trained", train=TrainSection(epochs=turns + 1))


def print_reader(run: Run, options: argparse.Namespace) -> None:
    one_cpu = partial(ray.init, num_cpus=1)
    with patch.object(ray, "init", one_cpu), connect():
        turns = reader_turns(run, expand_shards(options.shards), options.turns, with_ray=True)
    print(table(turns, "webdataset", [RAY_DATA]))


def print_embed(run: Run, options: argparse.Namespace) -> None:
    print(f"{run.network.forward.precision}, batches of {run.network.forward.batch_size}\n")
    print(table(embed_turns(run, options.turns), BARE))


def print_train(run: Run, options: argparse.Namespace) -> None:
    task = train_task(run, options.turns)
    print(f"{task.precision}, batches of {task.train.batch_size}, {task.catalog.num_rows:,} rows per epoch\n")
    if options.ray:
        with connect():
            turns = train_turns_on_ray(task)
    else:
        with one_process_group():
            turns = train_turns(task)
    print(table(turns, PLAIN))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the product's loops beside bare ones.")
    parser.add_argument("what", choices=("reader", "embed", "train"))
    parser.add_argument("shards", nargs="?", help="a pattern; made where there is none")
    parser.add_argument("--samples", type=int, default=10_000, help="of the synthetic shards (10000)")
    parser.add_argument("--label", default="json:label", help="as data.label (json:label)")
    parser.add_argument("--classes", type=int, default=10, help="how many (10)")
    parser.add_argument("--size", type=int, default=32, help="side of the images (32)")
    parser.add_argument("--model", default="small_resnet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--block-rows", type=int, default=4000, help="rows of a unit of the embedding (4000)")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--turns", type=int, default=12, help="(12)")
    parser.add_argument("--ray", action="store_true", help="train in a worker of Ray Train")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.shards is None:
            samples = synthetic_samples(options.samples, options.classes, options.size, 0.3, 0)
            write_shards(f"{folder}/shards", "synthetic", samples, SHARD_SAMPLES)
            options.shards = f"{folder}/shards/*.tar"
        changes: dict[str, dict[str, Any]] = {
            "data": {"label": options.label},
            "model": {"name": options.model, "width": options.width},
            "blocks": {"rows": options.block_rows},
        }
        run = run_of(Path(folder), options.shards, options.classes, options.size, changes, precision=options.precision)
        {"reader": print_reader, "embed": print_embed, "train": print_train}[options.what](run, options)


if __name__ == "__main__":
    main()
