"""A phase: one network trained on a lesson for some epochs, examined on samples whose labels are right.

All methods are made of phases and of what is computed between them. A phase is what Ray Train runs, resumes and leaves
behind: the network after its last epoch, its accuracy after each, and where asked, losses of all rows and the
optimizer's state for the phase that goes on from it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from rayclean.catalog.table import Catalog
from rayclean.errors import UnitError
from rayclean.learn.targets import read_lesson
from rayclean.schema import Array
from rayclean.storage.contents import read_bytes, read_json, write
from rayclean.storage.executor import Report
from rayclean.storage.resume import Resume
from rayclean.train.batches import Lesson
from rayclean.train.forward import Forward
from rayclean.train.inputs import Inputs
from rayclean.train.loop import Rank, State, train_epochs
from rayclean.train.task import WorkerTask
from rayclean.train.worker import write_trajectories

STATE_FILE = "state.pt"
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Exam:
    """Samples with labels that are right.

    Attributes:
        name: `test` or `validation`.
        catalog: where they are.
        rows: (R,) which of its rows.
        inputs: how networks see them.
    """

    name: str
    catalog: Catalog
    rows: Array
    inputs: Inputs

    def correct(self, forward: Forward, rank: Rank) -> Array:
        """(R,) uint8 which of this rank's share of the samples the network gets right; 0 for those of other ranks."""
        reader, found = self.inputs.of(self.catalog), np.zeros(len(self.rows), np.uint8)
        mine = np.arange(rank.index, len(self.rows), rank.count)
        for start in range(0, len(mine), ROWS_AT_ONCE):
            here = mine[start : start + ROWS_AT_ONCE]
            rows = self.rows[here]
            logits = forward.logits(forward.normalized(reader.read(rows))).float().cpu().numpy()
            if not np.isfinite(logits).all():
                raise UnitError("training diverged: the network's output is not finite; lower learn.train.lr")
            found[here] = logits.argmax(axis=1) == self.catalog.label[rows]
        return found


@dataclass(frozen=True, kw_only=True)
class Graded(WorkerTask):
    """A training on a lesson that is examined after each epoch.

    Attributes:
        name: for people.
        lesson: file of the rows to train on, with labels and weights; None for all rows and the given labels.
        exams: what is examined.
        stop: the last epoch; the rate follows `train.epochs`.
        choice: file that says how the weight decay was chosen; None where it was given.
    """

    name: str
    lesson: str | None
    exams: tuple[Exam, ...]
    stop: int
    choice: str | None = None

    def read_lesson(self) -> Lesson:
        """What the lesson says, or the given labels."""
        return read_lesson(self.store, self.catalog, self.lesson)

    def accuracy_file(self, epoch: int) -> str:
        """What an epoch got right."""
        return f"{self.folder}/accuracy/epoch-{epoch:04d}.json"

    @property
    def correct_file(self) -> str:
        """Which samples of each exam the network gets right after the last epoch, (R,) uint8 by the exam's name."""
        return f"{self.folder}/correct/epoch-{self.stop:04d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Phase(Graded):
    """One network's training. It starts from the weights of `train.from`, from new ones, or where another phase ended.

    Attributes:
        folder: `learn-<fingerprint>`.
        goes_on: file of the state that an earlier phase left, to go on from; None to begin at epoch 1.
        judged: epochs after which the losses of all rows are written.
        leaves_state: whether another phase goes on from this one.
    """

    goes_on: str | None
    judged: tuple[int, ...]
    leaves_state: bool

    @property
    def state_file(self) -> str:
        """What a phase that goes on from this one begins with."""
        return f"{self.folder}/{STATE_FILE}"


def run_phase(phase: Phase, index: int, ranks: int, resume: Resume, report: Report) -> None:
    """Trains a phase as one rank, from a state or from its start, to its last epoch."""
    state, rank = resume.state, Rank(index, ranks)
    lesson, network = phase.read_lesson(), phase.new_network()
    if state is None and phase.goes_on is not None:
        data = read_bytes(phase.store, phase.goes_on)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    elif state is None and phase.train.from_ is not None:
        examine(phase, phase.forward_of(network), 0, rank)
    feed, settings = phase.open_feed(rank, lesson), phase.loop(rank, len(lesson.rows), phase.stop)
    for epoch, bare, after in train_epochs(settings, network, feed.batches, rank, state):
        forward = phase.forward_of(bare)
        examine(phase, forward, epoch, rank)
        if epoch in phase.judged:
            write_trajectories(phase, forward, feed, epoch, rank)
        if rank.index == 0 and epoch == phase.stop:
            phase.publish_snapshot(epoch, bare)
            if phase.leaves_state:
                _leave(phase, after)
        report(epoch, after if rank.index == 0 else None)


def _leave(phase: Phase, state: State) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(phase.store, phase.state_file, buffer.getvalue())


def examine(phase: Graded, forward: Forward, epoch: int, rank: Rank) -> None:
    """Writes how many samples of each exam the network gets right, at last which ones; the ranks share them out."""
    found = [exam.correct(forward, rank) for exam in phase.exams]
    if rank.count > 1:
        found = [_together(each, forward.device) for each in found]
    if rank.index == 0:
        right = {exam.name: each for exam, each in zip(phase.exams, found, strict=True)}
        if epoch == phase.stop and right:
            write(phase.store, phase.correct_file, right)
        counts = {name: {"correct": int(each.sum()), "samples": len(each)} for name, each in right.items()}
        write(phase.store, phase.accuracy_file(epoch), counts)


def _together(mine: Array, device: torch.device) -> Array:
    """The sum over all ranks, (R,) uint8, of what each has found of its share."""
    values = torch.from_numpy(mine).to(device)
    dist.all_reduce(values)
    result: Array = values.cpu().numpy()
    return result


def accuracies(phase: Graded, exam: str) -> dict[int, float]:
    """Accuracy by epoch, as far as the network was examined; epoch 0 is before the first."""
    found = {}
    for epoch in range(phase.stop + 1):
        if phase.store.exists(phase.accuracy_file(epoch)):
            counts = read_json(phase.store, phase.accuracy_file(epoch)).get(exam)
            if counts and counts["samples"]:
                found[epoch] = counts["correct"] / counts["samples"]
    return found
