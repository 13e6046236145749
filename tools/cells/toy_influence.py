"""The toy example of Influential Rank (section 3.4): flipped points in the plane, removed in three iterations.

    .venv/bin/python tools/cells/toy_influence.py toy.png --seed 0

100 points, x1 ~ U(-5, 5), x2 ~ U(0, 55), class 1 iff x2 >= 3 x1^2; 40 labels are flipped. A network of two layers
with 50 hidden units is trained on the given labels. Then three times: remove the points that OSM and OSD agree on,
and train on with the rest from the weights it has. The picture shows all points, and what is left after the first
and the third iteration. It needs matplotlib.

What the paper leaves open is our choice: tanh, inputs scaled to -1..1, Adam on the whole set, its steps, five
verified points per class, OSD over samples, votes of both classes.

Found: over 200 seeds the first iteration removes 17 points and the three together 42, about the paper's 20 and 20
more. But of those removed 59% and 56% are flipped (40% would be by chance), and in 5% and 2% of the seeds no more
than 40%: the number of points is the paper's, but what remains is not clean. OSM alone (gamma 0, 100 seeds) removes
more at the same precision first, 38 points, and too many in the end, 74 at 49%. At 100 steps the network fits 64% of
the given labels. After 2,000 (40 seeds) it fits 99%, and what is removed is flipped in 52% first and 49% in all:
over-fitting, which the paper relies on, does not help here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from rayclean.schema import Array
from rayclean.scores.influence import class_deviation, gradients, influence_norms, residuals, validation_influence
from rayclean.scores.influence_solvers import DenseSolver, Hessian
from rayclean.scores.influence_votes import fit_votes, gamma_count, noisy_probable, standardized, votes

NUM_POINTS = 100
NUM_FLIPPED = 40
NUM_VALIDATION = 5  # per class
NUM_ITERATIONS = 3
NUM_HIDDEN = 50
FIRST_STEPS = 100
LATER_STEPS = 20
LEARNING_RATE = 0.01
DAMPING = 0.01
GAMMA = 0.8
MARKERS = (("o", "as drawn"), ("X", "flipped"))
LOW, HIGH = np.array([-5.0, 0.0]), np.array([5.0, 55.0])


class Points(NamedTuple):
    """Points of the plane.

    Attributes:
        x: (N, 2) float64.
        truth: (N,) int64, 0 or 1.
        given: (N,) int64, the labels of which some are flipped.
    """

    x: Array
    truth: Array
    given: Array

    def take(self, rows: Array) -> Points:
        """Those of these rows."""
        return Points(*(column[rows] for column in self))

    @property
    def flipped(self) -> Array:
        """(N,) bool."""
        return np.asarray(self.given != self.truth)


def draw_points(num: int, num_flipped: int, rng: np.random.Generator) -> Points:
    """Uniform points, exactly `num_flipped` of them with the other label."""
    x = rng.uniform(LOW, HIGH, size=(num, 2))
    truth = (x[:, 1] >= 3 * x[:, 0] ** 2).astype(np.int64)
    given = truth.copy()
    given[rng.permutation(num)[:num_flipped]] ^= 1
    return Points(x, truth, given)


def build_network(seed: int) -> nn.Sequential:
    """Two layers in float64; the first two parts give the features, the last one the logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, NUM_HIDDEN), nn.Tanh(), nn.Linear(NUM_HIDDEN, 2)).double()


def _inputs(points: Points) -> torch.Tensor:
    return torch.from_numpy(2 * (points.x - LOW) / (HIGH - LOW) - 1)


def train(network: nn.Sequential, points: Points, steps: int) -> None:
    """Steps of Adam on all points at a time."""
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    inputs, labels = _inputs(points), torch.from_numpy(points.given)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _outputs(network: nn.Sequential, points: Points) -> tuple[Array, Array, Array]:
    """(N, 2) probabilities, (N, 2) residuals, (N, d) features."""
    with torch.no_grad():
        features = network[:-1](_inputs(points))
        logits = network[-1](features)
    return torch.softmax(logits, dim=1).numpy(), residuals(logits.numpy(), points.given), features.numpy()


def consensus(network: nn.Sequential, points: Points, validation: Points, gamma: float = GAMMA) -> Array:
    """(N,) bool: the points that Algorithm 1 removes.

    Args:
        network: as trained on the points.
        points: N of them.
        validation: the verified points, with their true labels as given ones.
        gamma: share of the two classes whose votes it takes; 0.0 for OSM alone.
    """
    probabilities, residual, features = _outputs(network, points)
    _, validation_residual, validation_features = _outputs(network, validation)
    solver = DenseSolver(Hessian(probabilities, features, DAMPING))
    solved = solver.solve(gradients(validation_residual, validation_features))
    influence = validation_influence(solved, residual, features)
    osm = standardized(influence_norms(solver.inverse(), residual, features))
    osd = standardized(class_deviation(influence, validation.given, 2))
    return noisy_probable(osm, votes(osd, fit_votes(osm, osd)), gamma_count(gamma, 2))


class Toy(NamedTuple):
    """A run of the example.

    Attributes:
        points: all of them.
        removed: for each iteration, the rows that it removed.
        accuracy: of the first network on the given labels.
    """

    points: Points
    removed: list[Array]
    accuracy: float

    def kept(self, num_iterations: int) -> Points:
        """What is left after so many iterations."""
        return self.points.take(np.setdiff1d(np.arange(len(self.points.x)), self._removed(num_iterations)))

    def counts(self, num_iterations: int) -> tuple[int, int]:
        """How many points so many iterations removed, and how many of these are flipped."""
        removed = self._removed(num_iterations)
        return len(removed), int(self.points.flipped[removed].sum())

    def _removed(self, num_iterations: int) -> Array:
        return np.concatenate([np.empty(0, np.int64), *self.removed[:num_iterations]])


def run_toy(seed: int, gamma: float = GAMMA, first_steps: int = FIRST_STEPS) -> Toy:
    """Draws the points, trains, and removes in three iterations.

    Args:
        seed: of the points and of the network.
        gamma: as in `consensus`.
        first_steps: of training before the first removal.
    """
    rng = np.random.default_rng(seed)
    points, pool = draw_points(NUM_POINTS, NUM_FLIPPED, rng), draw_points(20 * NUM_VALIDATION, 0, rng)
    validation = pool.take(np.concatenate([np.flatnonzero(pool.truth == k)[:NUM_VALIDATION] for k in (0, 1)]))
    network = build_network(seed)
    train(network, points, first_steps)
    accuracy = float((_outputs(network, points)[0].argmax(axis=1) == points.given).mean())
    kept, removed = np.arange(NUM_POINTS), list[Array]()
    for _ in range(NUM_ITERATIONS):
        noisy = consensus(network, points.take(kept), validation, gamma)
        removed.append(kept[noisy])
        kept = kept[~noisy]
        train(network, points.take(kept), LATER_STEPS)
    return Toy(points, removed, accuracy)


def draw_picture(toy: Toy, path: Path) -> None:
    """Three panels: all points, those left after the first and after the third iteration; flipped ones as crosses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = np.linspace(LOW[0], HIGH[0], 200)
    for panel, num_iterations in zip(figure.subplots(1, 3, sharey=True), (0, 1, NUM_ITERATIONS), strict=True):
        points = toy.kept(num_iterations)
        for flipped, (marker, _) in enumerate(MARKERS):
            here = points.take(np.flatnonzero(points.flipped == flipped))
            panel.scatter(*here.x.T, c=here.given, marker=marker, cmap="coolwarm", vmin=0, vmax=1)
        panel.plot(axis, 3 * axis**2, color="0.5", linewidth=1)
        panel.set(xlim=(LOW[0], HIGH[0]), ylim=(LOW[1], HIGH[1]), xlabel="$x_1$")
        num_removed, num_hits = toy.counts(num_iterations)
        removed = f"removed by iteration {num_iterations}: {num_removed}, {num_hits} of them flipped"
        panel.set_title(removed if num_iterations else f"{NUM_FLIPPED} of {NUM_POINTS} labels flipped", fontsize=10)
    figure.axes[0].set_ylabel("$x_2$")
    markers = [Line2D([], [], color="0.4", marker=marker, linestyle="", label=label) for marker, label in MARKERS]
    figure.legend(handles=markers, loc="outside lower center", ncols=2)  # the colour is the given label
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the toy example of Influential Rank.")
    parser.add_argument("picture", type=Path, help="the file to write, such as toy.png")
    parser.add_argument("--seed", type=int, default=0, help="of the points and of the network (0)")
    parser.add_argument("--gamma", type=float, default=GAMMA, help=f"share of the classes' votes ({GAMMA})")
    options = parser.parse_args(arguments)
    toy = run_toy(options.seed, options.gamma)
    for num_iterations in range(1, NUM_ITERATIONS + 1):
        num_removed, num_hits = toy.counts(num_iterations)
        print(f"after {num_iterations} iterations: {num_removed} points removed, {num_hits} of them flipped")
    draw_picture(toy, options.picture)


if __name__ == "__main__":
    main()
