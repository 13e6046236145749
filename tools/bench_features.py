"""How long `LabelScorer.fit_features` takes, beside scikit-learn's logistic regression on the same rows and folds.

    OMP_NUM_THREADS=2 .venv/bin/python tools/bench_features.py --rows 100000 --dim 768 --classes 10

Features are clouds around class means, some labels are wrong. The search of neighbours is apart: it grows with the
square of the rows, and tools/bench_neighbors.py has it. Without `--search` lists are drawn from rows that look alike,
so that all that is made of lists takes as long as with the nearest ones.

One line of a Markdown table. By the clock, and by the time of CPUs, which other work on the machine disturbs less; the
load is the average of the last minute, before and after.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from rayclean.evaluate.metrics import auroc
from rayclean.memory.features import FeatureScoring
from rayclean.schema import NO_LABEL, Array
from tools.honest_data import Rows
from tools.honest_ways import ByFeatures, logistic_beliefs

WRONG = 0.3
APART = 6.0  # of class means, in deviations of a cloud: a tenth of the rows is nearer to another one
HEADER = (
    "| rows | dims | classes | threads | fit_features, s | CPU s | of that search, s | CPU s "
    "| logistic regression, s | CPU s | fit_features without search / regression | by CPU s "
    "| load | AUROC: label_score, regression |"
)


class Took(NamedTuple):
    """Seconds by the clock and of all CPUs together."""

    wall_s: float
    cpu_s: float

    def less(self, other: Took) -> Took:
        """Without a part."""
        return Took(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)

    def over(self, other: Took) -> str:
        """How many times as long."""
        return f"{self.wall_s / other.wall_s:.2f} | {self.cpu_s / other.cpu_s:.2f}"

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} | {self.cpu_s:.1f}"


@dataclass
class WatchedScoring(FeatureScoring):
    """Scores by features, with the time of the search kept."""

    searches: list[Took] = field(default_factory=list)

    def _nearest(self, num: int, any_label: bool) -> Array:
        found, took = timed(lambda: self._lists(num, any_label))
        self.searches.append(took)
        return found

    def _lists(self, num: int, any_label: bool) -> Array:
        return super()._nearest(num, any_label)


@dataclass
class DrawnScoring(WatchedScoring):
    """The same with drawn lists: of rows of the label, or of rows that the mean of the same label is nearest to."""

    def _lists(self, num: int, any_label: bool) -> Array:
        labels, rng = self.samples.labels, np.random.default_rng(self.config.run.seed)
        clouds = nearest_mean(self.features, labels, self.num_classes) if any_label else labels
        lists = np.empty((len(labels), num), np.int64)
        for cloud in np.unique(clouds):
            here = np.flatnonzero(clouds == cloud)
            lists[here] = rng.choice(here, (len(here), num))
        return lists


def nearest_mean(features: Array, labels: Array, num_classes: int) -> Array:
    """(N,) the label whose rows' mean is nearest."""
    means = np.stack([features[labels == label].mean(axis=0) for label in range(num_classes)])
    return np.asarray((features @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1))


def timed(work: Callable[[], Array]) -> tuple[Array, Took]:
    """What some work gives, and what it took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    found = work()
    return found, Took(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def made_rows(num_rows: int, dim: int, num_classes: int, seed: int) -> Rows:
    """Clouds of features, of which a share `WRONG` has a label that is drawn."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_rows)
    means = rng.normal(size=(num_classes, dim)).astype(np.float32)
    means *= APART / np.linalg.norm(means, axis=1, keepdims=True) / np.sqrt(2)
    features = means[truth] + rng.standard_normal((num_rows, dim), np.float32)
    labels = np.where(rng.random(num_rows) < WRONG, rng.integers(0, num_classes, num_rows), truth)
    return Rows(labels, truth, num_classes, features)


def line(rows: Rows, search: bool, seed: int) -> str:
    """One line of the table."""
    loads = [os.getloadavg()[0]]
    way = ByFeatures(rows, seed, WatchedScoring if search else DrawnScoring)
    right, fit = timed(lambda: way.judge(np.full(len(rows.labels), NO_LABEL)).right)
    searches = way.scoring.searches if isinstance(way.scoring, WatchedScoring) else []
    searched = Took(sum(each.wall_s for each in searches), sum(each.cpu_s for each in searches))
    beliefs, regression = timed(lambda: logistic_beliefs(rows, way.scoring.folds)[0])
    loads.append(os.getloadavg()[0])
    confidence = beliefs[np.arange(len(beliefs)), rows.labels]
    quality = ", ".join(f"{auroc(values, rows.clean):.4f}" for values in (right, confidence))
    num_rows, dim = rows.inputs.shape
    return (
        f"| {num_rows:,} | {dim} | {rows.num_classes} | {torch.get_num_threads()} | {fit} | {searched} | {regression} "
        f"| {fit.less(searched).over(regression)} | {loads[0]:.1f} to {loads[1]:.1f} | {quality} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--search", action="store_true", help="search the nearest rows, in place of drawn lists")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = made_rows(options.rows, options.dim, options.classes, options.seed)
    print(HEADER, "|" + "--:|" * (HEADER.count("|") - 1), sep="\n")
    print(line(rows, options.search, options.seed), flush=True)


if __name__ == "__main__":
    main()
