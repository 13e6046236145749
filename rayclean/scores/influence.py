"""Influence of a label on the last layer: gradients, OSM and the deviations behind OSD (Influential Rank).

Only the last linear layer's parameters count (Influential Rank, B.2). With r_i = f(x_i) - onehot(y_i) and
h~_i = [h_i; 1] a sample's gradient is the outer product g_i = r_i h~_i^T, so neither it nor its influence is ever
stored: every linear functional <U, g_i> is r_i^T U h~_i. H is the damped Hessian (`influence_solvers`).

A high influence is suspicious; the scores made of it are negated, so that higher is cleaner.

Letters: N rows, K classes, d features, p = K(d+1) parameters, V verified rows, B matrices, C clips. Arrays of
parameters are (K, d+1), the bias last; flattened, entry (k, j) is at k(d+1) + j. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.schema import Array
from rayclean.train.sample_losses import check_logits

Float64 = NDArray[np.float64]

CHUNK_NUMBERS = 1 << 22  # float64 numbers a temporary array may hold: 32 MiB


def row_chunks(num_rows: int, numbers_per_row: int) -> Iterator[slice]:
    """Slices of rows whose temporary array stays within `CHUNK_NUMBERS`, of one row at least."""
    step = max(1, CHUNK_NUMBERS // max(1, numbers_per_row))
    return (slice(start, start + step) for start in range(0, num_rows, step))


def with_bias(features: Array) -> Float64:
    """h~: (N, d) features of any float type to (N, d+1) float64, the last column 1."""
    return np.concatenate([features.astype(np.float64), np.ones((len(features), 1))], axis=1)


def residuals(logits: Array, labels: Array) -> Float64:
    """R = softmax(z) - onehot(y): the gradient of the loss in the logits.

    The entry at the label is minus the sum of the others, so that 1 - f_y keeps its digits where f_y rounds to 1.

    Args:
        logits: (N, K) z, finite.
        labels: (N,) given labels y, in 0..K-1.

    Returns:
        (N, K) float64 in -1..1; rows sum to 0.

    Raises:
        ValueError: a logit is not finite, a label is out of range, or the shapes do not fit.
    """
    check_logits(logits, labels)
    at_label = np.arange(len(labels)), labels
    result: Float64 = scipy.special.softmax(logits.astype(np.float64), axis=1)
    result[at_label] = 0
    # 0 - x, where -x would make -0.0 of a network that is sure of the label.
    result[at_label] = 0.0 - result.sum(axis=1)
    return result


def gradients(residual: Array, features: Array) -> Float64:
    """g_i = r_i h~_i^T of each row, (N, K, d+1) float64: for the few rows where it is needed whole."""
    return residual[:, :, None] * with_bias(features)[:, None, :]


def gradient_norms(residual: Array, features: Array) -> Float64:
    """||g_i|| = ||r_i|| ||h~_i||, (N,) float64, 0 or more."""
    lengths = [np.linalg.norm(with_bias(features[rows]), axis=1) for rows in row_chunks(*features.shape)]
    result: Float64 = np.linalg.norm(residual, axis=1) * np.concatenate([np.empty(0), *lengths])
    return result


def gradient_products(solved: Array, residual: Array, features: Array) -> Float64:
    """<U_b, g_i> = r_i^T U_b h~_i for all rows and matrices in one pass.

    It is linear in g: the product with the mean gradient of a clip is the clip's mean of the products
    (`clip_means`).

    Args:
        solved: (B, K, d+1) matrices U_b, such as H^-1 z of the probes or H^-1 g_v.
        residual: (N, K) r.
        features: (N, d) h.

    Returns:
        (N, B) float64.
    """
    num_matrices, num_classes, num_columns = solved.shape
    flat = solved.reshape(-1, num_columns).astype(np.float64, copy=False).T
    result = np.empty((len(residual), num_matrices))
    # One product with all matrices, then K numbers per row and matrix: no gradient of (K, d+1) is ever held.
    for rows in row_chunks(len(residual), num_matrices * num_classes + num_columns):
        at_rows = (with_bias(features[rows]) @ flat).reshape(-1, num_matrices, num_classes)
        result[rows] = np.matmul(at_rows, residual[rows, :, None])[..., 0]
    return result


def validation_influence(solved: Array, residual: Array, features: Array) -> Float64:
    """I_D(i, v) = -g_v^T H^-1 g_i: the change of v's loss per weight put on row i (Koh & Liang, ICML 2017).

    Taking a row of N out of the training set changes v's loss by about -I_D(i, v) / N.

    Args:
        solved: (V, K, d+1), H^-1 g_v of the verified rows.
        residual: (N, K) r.
        features: (N, d) h.

    Returns:
        (N, V) float64; above 0 where the row, as it is labelled, harms v.
    """
    return 0.0 - gradient_products(solved, residual, features)


def clip_means(values: Array, clips: Array) -> Float64:
    """Mean of the rows of each clip: (N, ...) to (C, ...) float64.

    A clip's loss is the mean of its frames' losses (Influential Rank, 4.4), so its gradient is the mean of theirs,
    and the means of what is linear in it are exact. Norms and deviations come after the mean.

    Args:
        values: (N, ...) what is linear in the gradients.
        clips: (N,) int ids; 0..C-1 all occur, each clip whole.

    Raises:
        ValueError: the ids are not dense, or not one per row.
    """
    order, starts, counts = _clip_order(clips, len(values))
    if not len(counts):
        return np.zeros((0, *values.shape[1:]))
    sums: Float64 = np.add.reduceat(values[order].astype(np.float64), starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def _clip_order(clips: Array, num_rows: int) -> tuple[Array, Array, Array]:
    """Rows in the order of their clips, where each clip starts in it, and its number of rows."""
    if clips.shape != (num_rows,) or (num_rows and clips.min() < 0):
        raise ValueError(f"({num_rows},) clip ids of 0 or more expected, found {clips.shape}")
    counts = np.bincount(clips)
    if not counts.all():
        raise ValueError(f"clip ids 0..{len(counts) - 1} expected, {(counts == 0).sum()} of them have no row")
    return np.argsort(clips, kind="stable"), np.cumsum(counts) - counts, counts


def influence_norms(inverse: Array, residual: Array, features: Array, clips: Array | None = None) -> Float64:
    """||I_M(i)|| = ||H^-1 g_i||, exact: p^2 multiplications per row (Influential Rank, Eq. 3 before its z-score).

    Args:
        inverse: (p, p) H^-1.
        residual: (N, K) r.
        features: (N, d) h.
        clips: (N,) dense ids; with them the norms are of H^-1 times the mean gradient of each clip.

    Returns:
        (N,) or (C,) float64, 0 or more; high = suspicious.

    Raises:
        ValueError: the clip ids are not dense, or not one per row.
    """
    order, starts, counts = _clip_order(np.arange(len(residual)) if clips is None else clips, len(residual))
    stops = starts + counts
    result = np.empty(len(counts))
    for chunk in row_chunks(len(counts), 2 * len(inverse)):
        here = [order[start:stop] for start, stop in zip(starts[chunk], stops[chunk], strict=True)]
        # The mean of outer products is a product of matrices: a clip's gradients are never held one by one.
        means = [residual[rows].T @ with_bias(features[rows]) / len(rows) for rows in here]
        result[chunk] = np.linalg.norm(np.stack(means).reshape(len(here), -1) @ inverse, axis=1)
    return result


def probe_norms(products: Array) -> Float64:
    """||H^-1 g_i|| by Hutchinson's estimate: sqrt(mean over z of (z^T H^-1 g_i)^2).

    Args:
        products: (N, m) `gradient_products` with u_z = H^-1 z of m Rademacher probes, or their clips' means.

    Returns:
        (N,) float64, 0 or more; the relative error of its square is at most `influence_solvers.relative_error`.
    """
    result: Float64 = np.sqrt(np.mean(np.square(products, dtype=np.float64), axis=1))
    return result


def damping_share(norms: Array, gradient_norms: Array, damping: float) -> float:
    """How much of the influence the damping alone decides: the median of damping ||H^-1 g_i|| / ||g_i|| [our choice].

    On an over-fitted network f is nearly one-hot and the Hessian nearly 0; I_M is then g / damping and OSM orders
    the rows by their gradient's norm.

    Args:
        norms: (N,) ||H^-1 g_i||, exact; by probes the share may pass 1 by their error.
        gradient_norms: (N,) ||g_i||.
        damping: of H.

    Returns:
        In 0..1: 1 where the Hessian has no part in it. Rows without gradient are left out; NaN if there is no other.
    """
    moved = gradient_norms > 0
    return float(np.median(damping * norms[moved] / gradient_norms[moved])) if moved.any() else float("nan")


def class_deviation(influence: Array, validation_labels: Array, num_classes: int) -> Float64:
    """sigma_k(i): the standard deviation of I_D(i, v) over the verified rows v of class k (Influential Rank, Eq. 4).

    Args:
        influence: (N, V) I_D, or its clips' means.
        validation_labels: (V,) true labels in 0..K-1.
        num_classes: K.

    Returns:
        (N, K) float64, 0 or more, high = suspicious: the population's deviation (divided by V_k). NaN for a class with
        fewer than two verified rows, of which there is none.
    """
    result = np.full((len(influence), num_classes), np.nan)
    for k in np.flatnonzero(np.bincount(validation_labels, minlength=num_classes) > 1):
        result[:, k] = influence[:, validation_labels == k].std(axis=1)
    return result
