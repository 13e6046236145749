"""The joint model at scale: seconds and memory of its fit and of its application, N rows of K classes.

    .venv/bin/python tools/bench/merge.py --rows 1000000 --classes 100
    .venv/bin/python tools/bench/merge.py --rows 1000000 --classes 1000 --noise next_class --no-header

Made beliefs stand for a network's: the softmax of Gaussian noise, raised at the true class and, less, at the given
label. They are drawn block by block, twice: for the rows that a run's fit would see, then for the application; never
are there more than these rows and a block. AUROC and noise rate tell that the model had something to find.

One line of a Markdown table per process, since a peak of memory is the process's: several sizes are several commands.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from rayclean.catalog.noise import flip_labels
from rayclean.config import MergeSection
from rayclean.evaluate.metrics import auroc
from rayclean.merge.anchors import SHARPNESS, fit_joint
from rayclean.merge.joint import JointModel
from rayclean.merge.models import fit_rows, is_near_row
from rayclean.merge.near import Near
from rayclean.schema import JOINT
from rayclean.storage.draws import uniform
from rayclean.storage.units import block_range, num_blocks

BLOCK_ROWS = 4000
SPREAD = 1.5  # standard deviation of a logit
MARGIN = SHARPNESS * SPREAD**2  # of the true class; Bayes' rule then counts a belief as the model does
LEAN = 1.0  # of the given label
NUM_NEIGHBORS = 3  # of any label, as in the table
HEADER = (
    "| rows | classes | noise | rows fitted | fit, s | application, s | rows/s | peak before the fit, MiB | after it "
    "| after the application | AUROC | noise rate (true) | prediction right (given label) |"
)

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]


class Rows(NamedTuple):
    """Some made rows.

    Attributes:
        beliefs: (n, K) float64, rows sum to 1.
        given: (n,) labels.
        truth: (n,) true classes.
        draws: (n,) uint64 draw ids.
    """

    beliefs: Float64
    given: Ints
    truth: Ints
    draws: NDArray[np.uint64]


@dataclass(frozen=True)
class Made:
    """Made rows, of which a block is drawn when it is asked for, each time the same.

    Attributes:
        num_rows: N.
        num_classes: K, at least 2.
        noise: `noise.kind` of a run.
        rate: `noise.rate`.
        seed: of everything that is drawn.
    """

    num_rows: int
    num_classes: int
    noise: str
    rate: float
    seed: int

    def blocks(self) -> Iterator[Rows]:
        """All rows."""
        for block in range(num_blocks(self.num_rows, BLOCK_ROWS)):
            start, stop = block_range(block, BLOCK_ROWS, self.num_rows)
            rng = np.random.default_rng([self.seed, block])
            truth = rng.integers(0, self.num_classes, stop - start)
            yield self._rows(truth, np.arange(start, stop, dtype=np.uint64), rng)

    def near(self, rows: Rows) -> Near:
        """Rows with neighbours: others of the same true class, whose labels are wrong as often."""
        truth = np.repeat(rows.truth, NUM_NEIGHBORS)
        draws = np.arange(self.num_rows, self.num_rows + len(truth), dtype=np.uint64)
        rng = np.random.default_rng([self.seed, num_blocks(self.num_rows, BLOCK_ROWS)])
        beside = self._rows(truth, draws, rng)
        shape = (len(rows.truth), NUM_NEIGHBORS)
        return Near(rows.beliefs, beside.beliefs.reshape(*shape, -1), rows.given, *[beside.given.reshape(shape)] * 2)

    def _rows(self, truth: Ints, draws: NDArray[np.uint64], rng: np.random.Generator) -> Rows:
        given = flip_labels(self.noise, truth, draws, self.num_classes, self.rate, self.seed)
        logits = SPREAD * rng.standard_normal((len(truth), self.num_classes))
        here = np.arange(len(truth))
        logits[here, truth] += MARGIN
        logits[here, given] += LEAN
        return Rows(softmax(logits, axis=1), given, truth, draws)


class Sample(NamedTuple):
    """What a run's fit sees.

    Attributes:
        beliefs: (n, K) in pieces.
        given: (n,) labels.
        near: rows with their neighbours.
    """

    beliefs: list[Float64]
    given: Ints
    near: Near


def drawn(made: Made, sample_rows: int) -> Sample:
    """Draws the rows that a run would fit to, and those that it would measure the lean on."""
    share = fit_rows(JOINT, sample_rows, made.num_classes) / made.num_rows
    fitted: list[Rows] = []
    near: list[Rows] = []
    for rows in made.blocks():
        fitted.append(_taken(rows, uniform(made.seed, "merge.fit", rows.draws) < share))
        near.append(_taken(rows, is_near_row(made.seed, rows.draws, made.num_rows)))
    measured = Rows(*(np.concatenate(column) for column in zip(*near, strict=True)))
    return Sample(
        [rows.beliefs for rows in fitted],
        np.concatenate([rows.given for rows in fitted]),
        made.near(measured),
    )


def _taken(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    return Rows(rows.beliefs[chosen], rows.given[chosen], rows.truth[chosen], rows.draws[chosen])


@dataclass(frozen=True)
class Applied:
    """What the application cost and found.

    Attributes:
        seconds: in `JointModel.posterior`; drawing the beliefs is not in it.
        auroc: of label_score, right against wrong labels.
        noise_rate: as label_score has it.
        true_noise_rate: share of wrong labels.
        predicted_right: share of rows whose predicted class is the true one.
    """

    seconds: float
    auroc: float
    noise_rate: float
    true_noise_rate: float
    predicted_right: float


def apply(model: JointModel, made: Made) -> Applied:
    """Judges all rows, block by block."""
    seconds, num_predicted = 0.0, 0
    scores, clean = [], []
    for rows in made.blocks():
        started_s = time.perf_counter()
        posterior = model.posterior(rows.beliefs, rows.given)
        seconds += time.perf_counter() - started_s
        scores.append(posterior.label_score)
        clean.append(rows.given == rows.truth)
        num_predicted += int((posterior.predicted == rows.truth).sum())
    score, right = np.concatenate(scores).astype(np.float64), np.concatenate(clean)
    area = auroc(score, right)
    return Applied(seconds, area, float(1 - score.mean()), float(1 - right.mean()), num_predicted / made.num_rows)


def peak_mib() -> float:
    """The most memory that the process had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def line(made: Made, sample_rows: int) -> str:
    """A line of the table."""
    sample = drawn(made, sample_rows)
    peaks = [peak_mib()]
    started_s = time.perf_counter()
    # The pieces stay beside their concatenation, as in a run.
    model = fit_joint(np.concatenate(sample.beliefs), sample.given, sample.near)
    fit_s = time.perf_counter() - started_s
    peaks.append(peak_mib())
    del sample
    found = apply(model, made)
    peaks.append(peak_mib())
    memory = " | ".join(f"{peak:,.0f}" for peak in peaks)
    return (
        f"| {made.num_rows:,} | {made.num_classes:,} | {made.noise} {made.rate:g} | {model.num_rows:,} | {fit_s:.2f} "
        f"| {found.seconds:.2f} | {made.num_rows / found.seconds:,.0f} | {memory} "
        f"| {found.auroc:.3f} | {found.noise_rate:.3f} ({found.true_noise_rate:.3f}) "
        f"| {found.predicted_right:.3f} ({1 - found.true_noise_rate:.3f}) |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the joint model on made beliefs.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="N (1000000)")
    parser.add_argument("--classes", type=int, default=100, help="K (100)")
    parser.add_argument("--noise", choices=("symmetric", "next_class"), default="symmetric", help="(symmetric)")
    parser.add_argument("--rate", type=float, default=0.3, help="of labels that are drawn anew (0.3)")
    parser.add_argument(
        "--sample-rows", type=int, default=MergeSection().sample_rows, help="merge.sample_rows, its default"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--no-header", action="store_true", help="the line alone, to add to a table")
    options = parser.parse_args(arguments)
    if not options.no_header:
        print(HEADER, "|--:|--:|---|" + "--:|" * 10, sep="\n")
    made = Made(options.rows, options.classes, options.noise, options.rate, options.seed)
    print(line(made, options.sample_rows), flush=True)


if __name__ == "__main__":
    main()
