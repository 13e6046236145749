"""RoG: class means and one covariance that outlast wrong labels (Lee et al., ICML 2019; docs/methods/rog.md).

A classifier made after training, from the features h of a network whose labels were noisy. Each class k is a Gaussian
N(mu_k, S) with one S for all, fitted twice, each time to a share (.7) of the rows with given label k: first to random
ones, then to those that lie nearest to the first mean, which is one step of the minimum covariance determinant. The
class of a new row is that of the largest

    z_k = mu_k^T P h - mu_k^T P mu_k / 2 + log(1/K),  P = S^+,

which is linear in h. Wrong labels lie far from the mean of the class that they name, so they drop out of it. That holds
while fewer of a class's labels are wrong than are left out; where many more are, the first mean is theirs, and a fit
to all rows (`share=1`) is no worse.

One layer, the penultimate one. The paper also sums such classifiers of several layers, with weights learned on rows
that were held out; that is left out [our choice].

Letters: N rows, K classes, d features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import pinvh

from rayclean.schema import Array
from rayclean.scores.influence import row_chunks
from rayclean.storage.draws import seeded_hash

Float64 = NDArray[np.float64]

SHARE = 0.7  # of each class's rows that stay, in both steps; the paper's
DRAW_SALT = "rog"
# A variance below this share of the largest squared mean is the rounding of a constant.
CONSTANT = np.finfo(np.float64).eps


@dataclass(frozen=True)
class LinearClassifier:
    """Logits that are linear in the features.

    Attributes:
        weight: (K, d) float64.
        bias: (K,) float64; -inf for a class that is never predicted.
    """

    weight: Float64
    bias: Float64

    def logits(self, features: Array) -> Float64:
        """(N, K) float64 of (N, d) features of any float type.

        Raises:
            ValueError: the features have another width.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise ValueError(f"features (N, {self.weight.shape[1]}) expected, found {features.shape}")
        result = np.empty((len(features), len(self.bias)))
        for rows in row_chunks(len(features), features.shape[1]):
            result[rows] = features[rows].astype(np.float64) @ self.weight.T + self.bias
        return result


class Gaussians(NamedTuple):
    """A Gaussian a class, of one covariance S, and the rows that it was fitted to.

    Attributes:
        means: (K, d) float64; 0 for a class without rows.
        precision: (d, d) float64, P = S^+.
        kept: (N,) bool, the rows that lie nearest to their class's first mean.
    """

    means: Float64
    precision: Float64
    kept: NDArray[np.bool_]


def fit_rog(
    features: Array, labels: Array, num_classes: int, seed: int, share: float = SHARE, ids: Array | None = None
) -> LinearClassifier:
    """Fit RoG's classifier to the features of rows with noisy labels, one layer [Lee et al.].

    The prior is uniform, as in the authors' code. Classes without rows are never predicted: weight 0, bias -inf
    [our choice]. Arguments, memory and errors are those of `robust_gaussians`.

    Returns:
        weight (K, d) and bias (K,) in float64; larger logits are likelier classes.
    """
    means, precision, _ = robust_gaussians(features, labels, num_classes, seed, share, ids)
    weight = means @ precision
    bias = -np.einsum("kd,kd->k", weight, means) / 2 - np.log(num_classes)
    return LinearClassifier(weight, np.where(np.bincount(labels, minlength=num_classes) > 0, bias, -np.inf))


def robust_gaussians(
    features: Array, labels: Array, num_classes: int, seed: int, share: float = SHARE, ids: Array | None = None
) -> Gaussians:
    """Fit means and covariance to random rows, then to those nearest to these means [Lee et al.].

    As in the authors' code: int(share * rows) rows of a class, S weighted by the rows of each class, a pseudo-inverse,
    one step of concentration. Departures [our choice]: their code divides the first S inside its loop over the
    classes, so that the last ones rule it; here it is the plain mean. A class keeps one row at least. Rows at equal
    distance stay in the order of their draws. Where no class spreads at all (one row each), P = I: the nearest mean.

    With fewer rows than features S has no inverse, and the pseudo-inverse is blind to differences between classes
    that do not occur within one: hundreds of features want thousands of rows.

    Beside the features, which may be mapped from one file, it holds some 50 bytes a row, a few (d, d) arrays and
    chunks of 32 MiB; it reads the features four times, class by class in row order, and takes 2.4 N d^2
    multiplications. An embedding's blocks joined in float16 are 2 N d bytes: 4 GB for 10^6 rows of 2,048 features.

    Args:
        features: (N, d) of any float type, finite.
        labels: (N,) given labels, in 0..K-1.
        num_classes: K.
        seed: of the random rows (`run.seed`).
        share: of each class's rows that stay, above 0 and up to 1.
        ids: (N,) uint64 whose hashes draw the rows, such as the catalog's `draw_id`; by default the positions. With
            ids the order of the rows changes nothing but rounding.

    Raises:
        ValueError: shapes that do not fit, no row, a label or share out of range, or a feature that is not finite.
    """
    _check(features, labels, num_classes, share)
    positions = np.arange(len(labels), dtype=np.uint64)
    draws = seeded_hash(seed, DRAW_SALT, positions if ids is None else ids)
    counts = np.bincount(labels, minlength=num_classes)
    rows = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    first = [_smallest(each, share, draws[each]) for each in rows]
    means = _means(features, first)
    precision = _precision(features, first, means)
    near = [
        _smallest(each, share, draws[each], _distances(features, each, mean, precision))
        for each, mean in zip(rows, means, strict=True)
    ]
    means = _means(features, near)
    kept = np.zeros(len(labels), np.bool_)
    kept[np.concatenate(near)] = True
    return Gaussians(means, _precision(features, near, means), kept)


def _check(features: Array, labels: Array, num_classes: int, share: float) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        found = f"{features.shape} and {labels.shape}"
        raise ValueError(f"features (N, d) and labels (N,) of at least one row expected, found {found}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels in 0..{num_classes - 1} expected, found {labels.min()}..{labels.max()}")
    if not 0 < share <= 1:
        raise ValueError(f"share above 0 and up to 1 expected, found {share}")


def _smallest(rows: Array, share: float, *keys: Array) -> Array:
    """The share of the rows whose last key is smallest, ties by the key before; one at least; in row order."""
    num = max(1, int(share * len(rows)))
    return np.sort(rows[np.lexsort(keys)[:num]])


def _means(features: Array, rows: Sequence[Array]) -> Float64:
    """(K, d) means of each class's rows; 0 where it has none."""
    result = np.zeros((len(rows), features.shape[1]))
    for mean, each in zip(result, rows, strict=True):
        for chunk in row_chunks(len(each), features.shape[1]):
            mean += features[each[chunk]].sum(axis=0, dtype=np.float64) / len(each)
    return result


def _precision(features: Array, rows: Sequence[Array], means: Float64) -> Float64:
    """P = S^+, (d, d): S the mean outer product of the deviations of all rows from their class's mean."""
    num_features = features.shape[1]
    covariance = np.zeros((num_features, num_features))
    for mean, each in zip(means, rows, strict=True):
        for deviations in _deviations(features, each, mean):
            covariance += deviations.T @ deviations
    if not np.isfinite(covariance).all():
        raise ValueError("finite features expected")
    covariance /= sum(len(each) for each in rows)
    precision = np.asarray(pinvh(covariance, atol=CONSTANT * np.square(means).max(initial=0.0)), np.float64)
    return precision if precision.any() else np.eye(num_features)


def _distances(features: Array, rows: Array, mean: Float64, precision: Float64) -> Float64:
    """(R,) squared Mahalanobis distances of rows from a mean."""
    chunks = (np.einsum("nd,nd->n", each @ precision, each) for each in _deviations(features, rows, mean))
    result = np.concatenate([np.empty(0), *chunks])
    if not np.isfinite(result).all():
        raise ValueError("finite features expected")
    return result


def _deviations(features: Array, rows: Array, mean: Float64) -> Iterator[Float64]:
    """Differences of rows from a mean, chunk by chunk."""
    for chunk in row_chunks(len(rows), features.shape[1]):
        deviations = features[rows[chunk]].astype(np.float64)
        deviations -= mean
        yield deviations
