"""A phase: one network trained on a lesson for some epochs, examined on samples whose labels are right.

All methods are made of phases and of what is computed between them. A phase is what Ray Train runs, resumes and leaves
behind: the network after its last epoch, its accuracy after each, and where asked, losses of all rows and the
optimizer's state for the phase that goes on from it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist

from rayclean.catalog.table import Catalog
from rayclean.config import TrainSection
from rayclean.errors import UnitError
from rayclean.schema import Array
from rayclean.shards.access import PixelSettings
from rayclean.storage.contents import encode, map_arrays, read_bytes, read_json
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks
from rayclean.train.batches import Lesson
from rayclean.train.feed import Feed, FeedSettings
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.loop import LoopSettings, Rank, State, train_epochs
from rayclean.train.snapshots import publish_weights, snapshot_name
from rayclean.train.spec import NetworkSpec
from rayclean.train.weights import load_weights_from
from rayclean.train.worker import write_trajectories

STATE_FILE = "state.pt"
ROWS_AT_ONCE = 1024

Report = Callable[[int, State | None], None]


@dataclass(frozen=True)
class Exam:
    """Samples with labels that are right.

    Attributes:
        name: `test` or `validation`.
        catalog: where they are.
        rows: (R,) which of its rows.
        pixels: how images are read.
    """

    name: str
    catalog: Catalog
    rows: Array
    pixels: PixelSettings

    def correct(self, forward: Forward, rank: Rank) -> int:
        """How many of this rank's share of the samples the network gets right."""
        pixels = self.catalog.shared_pixels(forward.spec.size, self.pixels)
        mine, found = self.rows[rank.index :: rank.count], 0
        for start in range(0, len(mine), ROWS_AT_ONCE):
            rows = mine[start : start + ROWS_AT_ONCE]
            logits = forward.logits(forward.normalized(pixels.read(rows))).float().cpu().numpy()
            if not np.isfinite(logits).all():
                raise UnitError("training diverged: the network's output is not finite; lower learn.train.lr")
            found += int((logits.argmax(axis=1) == self.catalog.label[rows]).sum())
        return found


class Graded(Protocol):
    """A training that is examined after each epoch."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def store(self) -> Store:
        """The run's files."""

    @property
    def folder(self) -> str:
        """Where it leaves what it gives."""

    @property
    def exams(self) -> tuple[Exam, ...]:
        """What it is examined on."""

    @property
    def stop(self) -> int:
        """The last epoch."""

    def accuracy_file(self, epoch: int) -> str:
        """What the network of an epoch got right."""


@dataclass(frozen=True)
class Phase:
    """One network's training: picklable, the same on every rank.

    Attributes:
        name: for people.
        folder: `learn-<fingerprint>`.
        lesson: file of the rows to train on, with labels and weights; None for all rows and the given labels.
        start: file or URL of the weights to start from; None for new ones.
        goes_on: file of the state that an earlier phase left, to go on from; None to begin at epoch 1.
        stop: the last epoch; the rate follows `train.epochs`.
        judged: epochs after which the losses of all rows are written.
        leaves_state: whether another phase goes on from this one.
        exams: what the network is examined on after each epoch.
    """

    name: str
    store: Store
    folder: str
    catalog: Catalog
    spec: NetworkSpec
    train: TrainSection
    lesson: str | None
    start: str | None
    goes_on: str | None
    stop: int
    judged: tuple[int, ...]
    leaves_state: bool
    exams: tuple[Exam, ...]
    weights: str | None
    feed: FeedSettings
    forward: ForwardSettings
    precision: str
    block_rows: int
    threads: int

    def accuracy_file(self, epoch: int) -> str:
        """What the network of an epoch got right."""
        return f"{self.folder}/accuracy/epoch-{epoch:04d}.json"

    @property
    def state_file(self) -> str:
        """What a phase that goes on from this one begins with."""
        return f"{self.folder}/{STATE_FILE}"


def read_lesson(store: Store, file: str | None, catalog: Catalog) -> Lesson:
    """What a file of labels and weights says, or the given labels."""
    if file is None:
        return Lesson(catalog.label)
    arrays = map_arrays(store, file)
    return Lesson(arrays["labels"], arrays.get("weights"))


def run_phase(phase: Phase, index: int, ranks: int, resume: Resume, report: Report) -> None:
    """Trains a phase as one rank, from a state or from its start, to its last epoch."""
    state = resume.state
    rank = Rank(index, ranks)
    lesson = read_lesson(phase.store, phase.lesson, phase.catalog)
    settings = LoopSettings(
        train=phase.train,
        spec=phase.spec,
        seed=phase.feed.seed,
        rank_rows=num_blocks(len(lesson.rows), rank.count),
        precision=phase.precision,
        device=phase.forward.device,
        threads=phase.threads,
        stop=phase.stop,
    )
    network = phase.spec.build(phase.feed.seed, phase.weights)
    if phase.start is not None:
        load_weights_from(phase.start, network)
    if state is None and phase.goes_on is not None:
        data = read_bytes(phase.store, phase.goes_on)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    elif state is None and phase.start is not None:
        examine(phase, Forward(network, phase.spec, phase.forward), 0, rank)
    feed = Feed(phase.catalog, phase.feed, rank.index, rank.count, lesson)
    for epoch, bare, after in train_epochs(settings, network, feed.batches, rank, state):
        forward = Forward(bare, phase.spec, phase.forward)
        examine(phase, forward, epoch, rank)
        if epoch in phase.judged:
            write_trajectories(phase, forward, feed, epoch, rank)
        if rank.index == 0 and epoch == phase.stop:
            publish_weights(phase.store, f"{phase.folder}/{snapshot_name(epoch)}", bare)
            if phase.leaves_state:
                _leave(phase, after)
        report(epoch, after if rank.index == 0 else None)


def _leave(phase: Phase, state: State) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    phase.store.publish(phase.state_file, encode(phase.state_file, buffer.getvalue(), "{}"))


def examine(phase: Graded, forward: Forward, epoch: int, rank: Rank) -> None:
    """Writes how many samples of each exam the network gets right; the ranks share them out."""
    counts = torch.tensor([exam.correct(forward, rank) for exam in phase.exams], dtype=torch.int64)
    if rank.count > 1:
        counts = counts.to(forward.device)
        dist.all_reduce(counts)
    if rank.index == 0:
        name = phase.accuracy_file(epoch)
        found = {
            exam.name: {"correct": correct, "samples": len(exam.rows)}
            for exam, correct in zip(phase.exams, counts.tolist(), strict=True)
        }
        phase.store.publish(name, encode(name, found, "{}"))


def accuracies(phase: Graded, exam: str) -> dict[int, float]:
    """Accuracy by epoch, as far as the network was examined; epoch 0 is before the first."""
    found = {}
    for epoch in range(phase.stop + 1):
        if phase.store.exists(phase.accuracy_file(epoch)):
            counts = read_json(phase.store, phase.accuracy_file(epoch)).get(exam)
            if counts and counts["samples"]:
                found[epoch] = counts["correct"] / counts["samples"]
    return found
