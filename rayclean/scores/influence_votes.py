"""OSM and OSD of rows, and the consensus that calls a row noisy-probable (Influential Rank, Eq. 3, 4 and Algorithm 1).

OSM is the z-score of ||I_M(i)||; OSD^k that of sigma_k(i), the deviation of I_D(i, v) over the verified rows v of
class k (`influence`). Both are high where a label is suspicious. A value that could not be computed is NaN; it
counts nowhere.

Letters: N rows, K classes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.schema import Array
from rayclean.scores.em import Ending, fit_as_sklearn

Float64 = NDArray[np.float64]
Standardize = Literal["samples", "classes"]
# Of the mixture that the votes are taken from, in sklearn's words.
ENDING = Ending(max_iter=999, tol=1e-6)  # after that from the start: 1000 of sklearn's
REG_COVAR = 1e-6


class Moments(NamedTuple):
    """Count, mean and spread of each column, NaN left out: what blocks of rows add up to.

    Attributes:
        num: (...) int64, values.
        mean: (...) float64; 0 without values.
        squares: (...) float64, the sum of (value - mean)^2, which keeps the digits that a sum of squares would lose
            beside a large mean.
    """

    num: Array
    mean: Array
    squares: Array

    def merged(self, other: Moments) -> Moments:
        """Those of both sets of rows (Chan, Golub & LeVeque, 1979)."""
        num = self.num + other.num
        share = other.num / np.maximum(num, 1)
        shift = other.mean - self.mean
        squares = self.squares + other.squares + shift**2 * self.num * share
        return Moments(num, self.mean + shift * share, squares)


def moments(values: Array, axis: int = 0) -> Moments:
    """Those of (N, ...) values over the rows, or along another axis, which then stays with length 1."""
    known = ~np.isnan(values)
    num = known.sum(axis=axis, keepdims=True)
    mean = np.where(known, values, 0).sum(axis=axis, keepdims=True, dtype=np.float64) / np.maximum(num, 1)
    squares = np.square(np.where(known, values - mean, 0)).sum(axis=axis, keepdims=True)
    return Moments(num, mean, squares) if axis else Moments(num[0], mean[0], squares[0])


def standardized(values: Array, kind: Standardize = "samples", fit: Moments | None = None) -> Float64:
    """OSM of the norms, OSD of the deviations: (value - mean) / std.

    The paper takes OSD's mean and std "over k" (Eq. 4), the kind `classes`: it normalises each row against itself, so
    its size is lost, and with two classes all is 1 or -1. The kind `samples` takes them over rows, for each
    class [our choice]; votes on it are those on the deviations themselves. OSM (Eq. 3) is over samples.

    Args:
        values: (N,) norms or (N, K) deviations, NaN where unknown.
        kind: over what the mean and the std are.
        fit: of all rows, where these are a block of them; only for `samples`. Without it, of these rows.

    Returns:
        (N,) or (N, K) float64; 0 where there is no spread beyond rounding [our choice].

    Raises:
        ValueError: `classes` of (N,) values or with a fit.
    """
    if kind == "classes":
        if values.ndim != 2 or fit is not None:
            raise ValueError(f"standardizing over classes needs (N, K) values and no fit, found {values.shape}")
        fit = moments(values, axis=1)
    elif fit is None:
        fit = moments(values)
    std = np.sqrt(fit.squares / np.maximum(fit.num, 1))
    centred = values.astype(np.float64) - fit.mean
    flat = std <= 1e-14 * np.abs(fit.mean)
    # 0 * x and not 0: what is unknown stays NaN.
    result: Float64 = np.where(flat, 0.0 * centred, centred / np.where(flat, 1.0, std))
    return result


def osm_score(osm: Array) -> Float64:
    """-OSM, (N,) float64: higher is cleaner."""
    return 0.0 - osm


def osd_score(osd: Array) -> Float64:
    """-(mean over k of OSD^k), (N,) float64: higher is cleaner [our choice; the paper only votes].

    Args:
        osd: (N, K) over samples; classes that are NaN (too few verified rows) are left out. Over classes each row's
            mean is 0, and so is this score.

    Returns:
        NaN where a row has no class.
    """
    over_classes = moments(osd, axis=1)
    return np.where(over_classes.num > 0, 0.0 - over_classes.mean, np.nan)[:, 0]


def fit_votes(osm: Array, osd: Array) -> Float64:
    """For each class, from which OSD^k on a row gets its vote (Algorithm 1, lines 4 to 6).

    The smaller mean of a mixture of two Gaussians on OSD^k of the rows with OSM >= 0. It is fitted on z-scores of
    these rows, as the floor under its variances is absolute, from means at their quartiles: no chance in it.

    Args:
        osm: (N,) OSM; a random part of the rows will do.
        osd: (N, K) OSD^k, or sigma_k: the mixture follows any affine map.

    Returns:
        (K,) float64. All rows' value where they have but one; NaN without any, and then nobody gets a vote.
    """
    return np.array([_smaller_mean(column) for column in osd[osm >= 0].T.astype(np.float64)])


def _smaller_mean(values: Array) -> float:
    values = values[~np.isnan(values)]
    scaled = np.asarray(standardized(values), np.float64)
    if not scaled.any():  # no rows, or no spread
        return float(values.mean()) if len(values) else float("nan")
    low, high = np.quantile(scaled, [0.25, 0.75])
    upper = scipy.special.expit(
        (high - low) * (scaled - (low + high) / 2)
    )  # of two Gaussians of variance 1 and equal weight there
    return float(values.mean() + values.std() * fit_as_sklearn(scaled, upper, ENDING, REG_COVAR).noisy.mean)


def votes(osd: Array, thresholds: Array) -> NDArray[np.int16]:
    """For how many classes k OSD^k is at its threshold or above, (N,) int16 in 0..K (Algorithm 1, line 6)."""
    result: NDArray[np.int16] = (osd >= thresholds).sum(axis=1, dtype=np.int16)
    return result


def gamma_count(gamma: int | float, num_classes: int) -> int:
    """How many votes make a row noisy-probable (Algorithm 1, line 8).

    The paper's 5 and 8 belong to 10 classes; for another number a share keeps what they mean [our choice].

    Args:
        gamma: an int is a count, 0 for OSM alone; a float is a share, ceil(gamma K). A count above K selects nothing.
        num_classes: classes that can vote, those of two verified rows or more: K where all have them.

    Raises:
        ValueError: a count below 0, or a share out of 0..1.
    """
    if gamma < 0 or (isinstance(gamma, float) and not gamma <= 1):
        raise ValueError(f"gamma {gamma} found; an int of 0 or more, or a float in 0..1 expected")
    # As the decimal that is written: 0.55 * 100 in binary is above 55.
    return math.ceil(Fraction(str(gamma)) * num_classes) if isinstance(gamma, float) else gamma


def noisy_probable(osm: Array, num_votes: Array, count: int) -> NDArray[np.bool_]:
    """Which rows to remove: OSM >= 0 and at least `count` votes (Algorithm 1, lines 3 and 8); 0 for OSM alone."""
    return (osm >= 0) & (num_votes >= count)
