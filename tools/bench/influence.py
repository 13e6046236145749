"""Influence at scale: time, memory, and how far the ways of solving agree.

    .venv/bin/python tools/bench/influence.py --rows 50000 --features 512 --classes 10
    .venv/bin/python tools/bench/influence.py --rows 100000 --features 2048 --classes 14

Made features and logits stand for a network: rectified Gaussians, a last layer that is right in most rows, three
labels in ten wrong, five verified rows per class. The conjugate gradients are compared with the Cholesky factor where
that fits; the probes' norms with exact ones of 200 rows, for which H^-1 g is solved row by row.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from scipy.special import softmax
from scipy.stats import spearmanr

from rayclean.schema import Array
from rayclean.scores.influence import (
    class_deviation,
    gradient_products,
    gradients,
    influence_norms,
    probe_norms,
    residuals,
    validation_influence,
)
from rayclean.scores.influence_scores import LastLayer
from rayclean.scores.influence_solvers import (
    DENSE_PARAMETERS,
    ConjugateGradientSolver,
    DenseSolver,
    Hessian,
    rademacher,
)

EXACT_ROWS = 200
VERIFIED = 5  # per class
BLOCK = 4000


def made(rows: int, num_features: int, num_classes: int, seed: int = 0) -> tuple[LastLayer, LastLayer]:
    """Rows with noisy labels, and verified rows, as a last layer sees them."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(num_classes, num_features)) * (4 / np.sqrt(num_features))

    def layer(truth: Array, given: Array) -> LastLayer:
        features = np.maximum(rng.normal(size=(len(truth), num_features)) + weight[truth] * 0.6, 0).astype(np.float16)
        return LastLayer((features.astype(np.float32) @ weight.T.astype(np.float32)), features, given)

    truth = rng.integers(0, num_classes, rows)
    wrong = rng.random(rows) < 0.3
    given = np.where(wrong, (truth + rng.integers(1, num_classes, rows)) % num_classes, truth)
    known = np.repeat(np.arange(num_classes), VERIFIED)
    return layer(truth, given), layer(known, known)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long the block took, and the most memory that the process had so far."""
    started_s = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:42} {time.perf_counter() - started_s:8.1f} s   peak {peak:5.1f} GiB", flush=True)


def by_blocks(rows: LastLayer, residual: Array, solved: Array) -> Array:
    """`gradient_products` block by block, as the stage does it."""
    parts = range(0, len(residual), BLOCK)
    return np.concatenate(
        [gradient_products(solved, residual[i : i + BLOCK], rows.features[i : i + BLOCK]) for i in parts]
    )


def deviations(rows: LastLayer, residual: Array, solved: Array, verified: LastLayer) -> Array:
    """sigma_k of all rows."""
    parts = range(0, len(residual), BLOCK)
    return np.concatenate(
        [
            class_deviation(
                validation_influence(solved, residual[i : i + BLOCK], rows.features[i : i + BLOCK]),
                verified.labels,
                rows.logits.shape[1],
            )
            for i in parts
        ]
    )


def compare(name: str, one: Array, other: Array) -> None:
    """Prints how two ways to the same numbers differ."""
    error = np.abs(one - other) / np.abs(one).max()
    rank = spearmanr(one.ravel(), other.ravel()).statistic
    print(f"{name:42} largest difference {error.max():.1e} of the largest value, rank correlation {rank:.6f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time influence on made rows, and compare the solvers.")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--hessian-rows", type=int, default=10_000)
    parser.add_argument("--probes", type=int, default=200)
    parser.add_argument("--damping", type=float, default=0.01)
    options = parser.parse_args(arguments)
    rows, verified = made(options.rows, options.features, options.classes)
    residual = residuals(rows.logits, rows.labels)
    chosen = slice(0, options.hessian_rows)  # made rows are in no order
    probabilities = softmax(rows.logits[chosen].astype(np.float64), axis=1)
    hessian = Hessian(probabilities, rows.features[chosen], options.damping)
    print(
        f"{options.rows:,} rows, {options.features} features, {options.classes} classes: p = {hessian.num_parameters:,}"
    )
    solver = ConjugateGradientSolver(hessian)
    right = gradients(residuals(verified.logits, verified.labels), verified.features)
    with timed(f"conjugate gradients, {len(right)} verified rows"):
        solved = solver.solve(right)
    with timed("OSD, one pass over all rows"):
        osd = deviations(rows, residual, solved, verified)
    with timed(f"conjugate gradients, {options.probes} probes"):
        probes = solver.solve(rademacher(options.probes, hessian.shape, 0))
    with timed("OSM by probes, one pass over all rows"):
        osm = probe_norms(by_blocks(rows, residual, probes))
    few = gradients(residual[:EXACT_ROWS], rows.features[:EXACT_ROWS])
    with timed(f"OSM exact by conjugate gradients, {EXACT_ROWS} rows"):
        exact = np.linalg.norm(solver.solve(few).reshape(len(few), -1), axis=1)
    compare(f"OSM by probes against exact, {EXACT_ROWS} rows", exact, osm[:EXACT_ROWS])
    if hessian.num_parameters > DENSE_PARAMETERS:
        return
    with timed("Cholesky and inverse"):
        dense = DenseSolver(hessian)
        inverse = dense.inverse()
    with timed("OSM exact by the inverse, all rows"):
        norms = influence_norms(inverse, residual, rows.features)
    compare(f"OSM by the inverse against exact, {EXACT_ROWS} rows", exact, norms[:EXACT_ROWS])
    compare("OSD by Cholesky against all rows' above", deviations(rows, residual, dense.solve(right), verified), osd)


if __name__ == "__main__":
    main()
