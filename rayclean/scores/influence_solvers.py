"""Solving with the last layer's Hessian: dense Cholesky while it is small, conjugate gradients past that.

    H = (1/M) sum over M rows of (diag(f) - f f^T) (x) h~ h~^T + damping I        (Influential Rank, B.3)

Adding one vector to all classes' weights does not move a softmax, so without damping H is always singular: its rank
is (K-1)(d+1) at most, and its smallest eigenvalue is the damping itself.

Letters: M rows, K classes, d features, p = K(d+1) parameters, B right-hand sides; see `influence` for the layout.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.schema import Array
from rayclean.scores.influence import row_chunks, with_bias

Float64 = NDArray[np.float64]

DENSE_PARAMETERS = 8000  # a (p, p) float64 array of this size is 512 MB; the dense solver holds two
SPECTRUM_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class Hessian:
    """The damped Hessian of the mean loss in the last layer's parameters, over a sample of rows.

    Args:
        probabilities: (M, K) f, from float64 logits.
        features: (M, d) h.
        damping: above 0; 0.01 in the paper.

    Raises:
        ValueError: the damping is not above 0, there is no row, or the shapes do not fit.
    """

    def __init__(self, probabilities: Array, features: Array, damping: float) -> None:
        if not damping > 0:
            raise ValueError(f"damping {damping} found, above 0 expected: the Hessian alone is singular")
        if not len(features) or probabilities.shape[:1] != features.shape[:1]:
            found = f"{probabilities.shape} and {features.shape}"
            raise ValueError(f"probabilities (M, K) and features (M, d) of the same rows expected, found {found}")
        self.damping = damping
        self._f = probabilities.astype(np.float64)
        self._h = with_bias(features)
        self.shape = (self._f.shape[1], self._h.shape[1])
        self.num_parameters = self.shape[0] * self.shape[1]

    def matrix(self) -> Float64:
        """H itself, (p, p)."""
        num_classes, num_columns = self.shape
        result = np.zeros((self.num_parameters, self.num_parameters))
        for rows in row_chunks(len(self._h), self.num_parameters):
            f, h = self._f[rows], self._h[rows]
            # -f f^T couples all classes, so it is one product; diag(f) below is in the blocks on the diagonal alone.
            weighted = (f[:, :, None] * h[:, None, :]).reshape(len(h), -1)
            result -= weighted.T @ weighted
        for k in range(num_classes):
            block = slice(k * num_columns, (k + 1) * num_columns)
            # The root on both sides: a product of a matrix with itself is symmetric to the last bit.
            rooted = np.sqrt(self._f[:, k, None]) * self._h
            result[block, block] += rooted.T @ rooted
        result /= len(self._h)
        result[np.diag_indices(self.num_parameters)] += self.damping
        return result

    def products(self, vectors: Array) -> Float64:
        """H v of each of (B, K, d+1) vectors, without a p x p matrix."""
        num_vectors, (num_classes, num_columns) = len(vectors), self.shape
        flat = vectors.reshape(-1, num_columns)
        result = np.zeros(flat.shape)
        for rows in row_chunks(len(self._h), num_vectors * num_classes):
            f, h = self._f[rows, None, :], self._h[rows]
            logits = (h @ flat.T).reshape(len(h), num_vectors, num_classes)  # how each v moves each row's logits
            # (diag(f) - f f^T) applied to a row's logits without its K x K matrix.
            moved = f * (logits - (f * logits).sum(axis=2, keepdims=True))
            result += moved.reshape(len(h), -1).T @ h
        product: Float64 = (result / len(self._h) + self.damping * flat).reshape(vectors.shape)
        return product

    @property
    def mean_eigenvalue(self) -> float:
        """The trace by p, damping included."""
        curvature = (self._f * (1 - self._f)).sum(axis=1) @ np.square(self._h).sum(axis=1)
        return float(curvature / len(self._h) / self.num_parameters + self.damping)


class Spectrum(NamedTuple):
    """What is known of the eigenvalues of the damped Hessian.

    Attributes:
        mean: their mean, always exact.
        quantiles: (8,) float64 at `SPECTRUM_QUANTILES`; NaN between the extremes where these alone are known.
        damping: the part of each that is damping.
    """

    mean: float
    quantiles: Float64
    damping: float

    @property
    def damping_share(self) -> float:
        """The damping's share of the trace, in 0..1; 1 where the network has no curvature left.

        A few large eigenvalues make up most of a trace, so most directions may be damped far more than this says;
        `influence.damping_share` looks at the gradients' own directions.
        """
        return self.damping / self.mean


class DenseSolver:
    """H^-1 by Cholesky: p^3 / 3 multiplications once, p^2 each right-hand side."""

    def __init__(self, hessian: Hessian) -> None:
        self._hessian = hessian
        self._matrix = hessian.matrix()

    @cached_property
    def _factor(self) -> tuple[Float64, bool]:
        return scipy.linalg.cho_factor(self._matrix, lower=True)

    def solve(self, right: Array) -> Float64:
        """H^-1 times each of (B, K, d+1) right-hand sides."""
        flat = right.reshape(len(right), -1)
        return np.ascontiguousarray(scipy.linalg.cho_solve(self._factor, flat.T).T).reshape(right.shape)

    def inverse(self) -> Float64:
        """H^-1, (p, p), symmetric to rounding."""
        return scipy.linalg.cho_solve(self._factor, np.eye(len(self._matrix)), overwrite_b=True)

    def spectrum(self) -> Spectrum:
        """All eigenvalues' quantiles; several times the work of the factor."""
        quantiles: Float64 = np.quantile(scipy.linalg.eigvalsh(self._matrix), SPECTRUM_QUANTILES).astype(np.float64)
        return Spectrum(self._hessian.mean_eigenvalue, quantiles, self._hessian.damping)


class ConjugateGradientSolver:
    """H^-1 by conjugate gradients, all right-hand sides at a time, in memory of some times (B, p).

    Args:
        hessian: H.
        tolerance: of ||H x - b|| / ||b||, for each right-hand side b.
        max_iterations: after which to give up; about sqrt(largest eigenvalue / damping) times 10 are enough.
    """

    def __init__(self, hessian: Hessian, tolerance: float = 1e-8, max_iterations: int = 1000) -> None:
        self._hessian = hessian
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def solve(self, right: Array) -> Float64:
        """H^-1 times each of (B, K, d+1) right-hand sides.

        Raises:
            numpy.linalg.LinAlgError: a ValueError; some residual is above the tolerance after `max_iterations`.
        """
        flat = right.astype(np.float64).reshape(len(right), -1)
        # Each is solved as of size 1: the squares of a sure network's tiny gradients are below float64.
        scale = np.abs(flat).max(axis=1, keepdims=True, initial=0.0)
        residual = flat / np.where(scale > 0, scale, 1.0)
        solution, direction = np.zeros_like(residual), residual.copy()
        squared = np.square(residual).sum(axis=1)
        lengths = np.sqrt(squared)
        open_ = np.flatnonzero(squared)
        for _ in range(self.max_iterations):
            if not len(open_):
                break
            # Only what has not converged goes on: easy right-hand sides do not pay for the hard ones.
            here = direction[open_]
            product = self._hessian.products(here.reshape(-1, *self._hessian.shape)).reshape(here.shape)
            step = (squared[open_] / np.einsum("bp,bp->b", here, product))[:, None]
            solution[open_] += step * here
            residual[open_] -= step * product
            before, now = squared[open_], np.square(residual[open_]).sum(axis=1)
            direction[open_] = residual[open_] + (now / before)[:, None] * here
            squared[open_] = now
            open_ = open_[np.sqrt(now) > self.tolerance * lengths[open_]]
        if len(open_):
            worst = (np.sqrt(squared[open_]) / lengths[open_]).max()
            raise np.linalg.LinAlgError(
                f"conjugate gradients: {len(open_)} of {len(right)} right-hand sides have a relative residual of up to "
                f"{worst:.1e} after {self.max_iterations} iterations, {self.tolerance:.1e} expected; "
                f"raise the damping (now {self._hessian.damping:g}) or the iterations"
            )
        result: Float64 = (scale * solution).reshape(right.shape)
        return result

    def spectrum(self) -> Spectrum:
        """Only the extremes: the largest eigenvalue by Lanczos, the smallest, which is the damping."""
        hessian = self._hessian
        size = hessian.num_parameters

        def product(vector: Array) -> Array:
            return hessian.products(vector.reshape(1, *hessian.shape)).ravel()

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(size)  # ARPACK's own start differs from call to call
        largest = scipy.sparse.linalg.eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)
        quantiles = np.full(len(SPECTRUM_QUANTILES), np.nan)
        quantiles[[0, -1]] = hessian.damping, largest[0]
        return Spectrum(hessian.mean_eigenvalue, quantiles, hessian.damping)


def make_solver(hessian: Hessian) -> DenseSolver | ConjugateGradientSolver:
    """The dense solver up to `DENSE_PARAMETERS`, conjugate gradients past them."""
    return DenseSolver(hessian) if hessian.num_parameters <= DENSE_PARAMETERS else ConjugateGradientSolver(hessian)


def rademacher(num_probes: int, shape: tuple[int, int], seed: int) -> Float64:
    """(m, K, d+1) float64 entries of -1 or 1, each with probability 1/2; m probes are the first m of any more."""
    signs: NDArray[np.int8] = np.random.default_rng(seed).integers(0, 2, size=(num_probes, *shape), dtype=np.int8)
    return 2 * signs.astype(np.float64) - 1


def relative_error(num_probes: int) -> float:
    """sqrt(2/m): a bound of the relative standard deviation of ||H^-1 g||^2 by m probes; half of it for the norm."""
    return float(np.sqrt(2 / num_probes))
