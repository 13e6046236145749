"""ODD: the loss that uniformly random labels would have (Song et al., ECCV 2020; methods.md, section 5).

Features x are drawn at random, a label k uniformly over all K classes, and

    loss = CE(W x + b, k) = logsumexp(z) - z_k,  z = W x + b,

with the network's own last layer. Rows whose loss is above a low percentile of these losses have labels that fit
no better than random ones. The paper draws x = max(g, 0), g ~ N(0, I) (`gauss`); the other kinds, the number of
draws, the seed and the columns made of it are our choice.

Letters: E epochs, N rows, K classes, d features, M rows of real features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.train.sample_losses import sample_losses

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating]
Features = Callable[[np.random.Generator], Float64]  # a whole tile: (TILE, d)

KINDS = ("gauss", "gauss_pooled", "empirical")

# The 10th percentile of so many draws is off by .1 of a percentile point (one standard deviation).
NUM_DRAWS = 100_000
# Draws are made and multiplied by W in tiles of this size, the last one whole too: the product of a tile is then
# the same whatever `num` is, and memory is 4 MB of features at d = 2048.
TILE = 256

# Within this, mean / std of a rectified Gaussian spans 2e-8..8. Above, it is a Gaussian to 1e-15.
MAX_OFFSET = 8.0

# A right simulation passes this distance at 50 planted rows in 3 of 1,000 cases (Kolmogorov's distribution).
MAX_DISTANCE = 0.25
MIN_PLANTED = 50


def simulated_losses(
    weight: Floats,
    bias: Floats,
    kind: str,
    num: int,
    seed: int,
    *,
    mean: Floats | None = None,
    std: Floats | None = None,
    features: Floats | None = None,
) -> Float64:
    """Return the losses of `num` random features under labels drawn uniformly over all K classes.

    The features x of a draw, by kind:
    - `gauss`: max(g, 0), g ~ N(0, I) [Song et al.]. It suits layers after BN and ReLU without pooling.
    - `gauss_pooled`: independent features of `rectified_gaussian`, with the measured means and stds.
    - `empirical`: real features of a row drawn with replacement; all correlations are kept.

    For one seed, the first draws are the same whatever `num` is.

    Args:
        weight: (K, d) W of the last layer.
        bias: (K,) b.
        kind: one of KINDS.
        num: draws, at least 1 (NUM_DRAWS).
        seed: not negative (`run.seed`).
        mean: (d,) of each feature over the rows, for `gauss_pooled`.
        std: (d,) of each feature over the rows, for `gauss_pooled`.
        features: (M, d) of random rows, for `empirical`.

    Returns:
        (num,) float64, at least 0, ascending.

    Raises:
        ValueError: unknown kind, what it needs is missing, shapes that do not fit, or logits that are not finite.
    """
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight (K, d) and bias (K,) expected, found {weight.shape} and {bias.shape}")
    if num < 1:
        raise ValueError(f"num must be at least 1, found {num}")
    draw = _features(kind, weight.shape[1], mean, std, features)
    # Streams of their own, so that the labels drawn are the same whatever kind of features is.
    feature_seed, label_seed = np.random.SeedSequence(seed).spawn(2)
    feature_draws = np.random.Generator(np.random.PCG64(feature_seed))
    label_draws = np.random.Generator(np.random.PCG64(label_seed))
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    losses = np.empty(math.ceil(num / TILE) * TILE)
    for tile in losses.reshape(-1, TILE):
        logits = draw(feature_draws) @ weight.T + bias
        tile[:] = sample_losses(logits, label_draws.integers(0, len(bias), TILE))[0]
    return np.sort(losses[:num])


def _features(kind: str, num_features: int, mean: Floats | None, std: Floats | None, rows: Floats | None) -> Features:
    """How a kind draws a tile of features."""
    if kind == "gauss":
        return lambda rng: np.maximum(rng.standard_normal((TILE, num_features)), 0.0)
    if kind == "gauss_pooled":
        if mean is None or std is None or not mean.shape == std.shape == (num_features,):
            raise ValueError(f"gauss_pooled needs mean and std ({num_features},), found {_shape(mean)}, {_shape(std)}")
        law = rectified_gaussian(mean, std)
        floor = np.where(law.rectified, 0.0, -np.inf)
        return lambda rng: np.maximum(law.centre + law.scale * rng.standard_normal((TILE, num_features)), floor)
    if kind == "empirical":
        if rows is None or rows.ndim != 2 or not len(rows) or rows.shape[1] != num_features:
            raise ValueError(f"empirical needs features (M, {num_features}), M at least 1, found {_shape(rows)}")
        return lambda rng: rows[rng.integers(0, len(rows), TILE)].astype(np.float64)
    raise ValueError(f"unknown kind {kind!r}; valid: {', '.join(KINDS)}")


def _shape(array: Floats | None) -> str:
    return "none" if array is None else str(array.shape)


class RectifiedGaussian(NamedTuple):
    """Independent features x_j = max(centre_j + scale_j g_j, 0), g ~ N(0, I); without the max where not rectified.

    Attributes:
        centre: (d,) float64.
        scale: (d,) float64, at least 0.
        rectified: (d,) bool.
    """

    centre: Float64
    scale: Float64
    rectified: NDArray[np.bool_]


def rectified_gaussian(mean: Floats, std: Floats) -> RectifiedGaussian:
    """Return the ReLU'd Gaussians whose features have the measured means and stds [our choice].

    With a = centre / scale, E x = scale (a P(a) + p(a)) and E x^2 = scale^2 ((a^2 + 1) P(a) + a p(a)), P and p the
    normal distribution function and density. mean / std grows with a alone, so a is found by bisection, then scale.

    A feature that no ReLU'd Gaussian has keeps its mean and std as a plain Gaussian: where the mean is not positive
    (networks without a last ReLU) or below 2e-8 std (hardly ever active), where it is above 8 std (the ReLU is idle),
    and where std = 0 (a constant).

    Args:
        mean: (d,) finite.
        std: (d,) finite, at least 0.

    Raises:
        ValueError: a mean or std is not finite, or a std is negative.
    """
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
        raise ValueError("finite means and stds >= 0 expected")
    centre, scale = mean.astype(np.float64), std.astype(np.float64)
    lowest, highest = (_mean_over_std(np.array(a)) for a in (-MAX_OFFSET, MAX_OFFSET))
    rectified = (centre > lowest * scale) & (centre < highest * scale)  # neither where scale = 0
    ratio = centre[rectified] / scale[rectified]
    low, high = np.full(len(ratio), -MAX_OFFSET), np.full(len(ratio), MAX_OFFSET)
    for _ in range(60):  # 16 / 2^60 is below the spacing of doubles
        middle = (low + high) / 2
        too_low = _mean_over_std(middle) < ratio
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    offset = (low + high) / 2
    scale[rectified] = centre[rectified] / _unit_moments(offset)[0]
    centre[rectified] = offset * scale[rectified]
    return RectifiedGaussian(centre, scale, rectified)


def _unit_moments(offset: Float64) -> tuple[Float64, Float64]:
    """E x and E x^2 of x = max(offset + g, 0), g ~ N(0, 1)."""
    below, density = scipy.special.ndtr(offset), np.exp(-(offset**2) / 2) / math.sqrt(2 * math.pi)
    return offset * below + density, (offset**2 + 1) * below + offset * density


def _mean_over_std(offset: Float64) -> Float64:
    first, second = _unit_moments(offset)
    return np.asarray(first / np.sqrt(second - first**2))


def threshold(simulated: Float64, percentile: float) -> float:
    """Return the percentile of the simulated losses above which a row is dropped, interpolated linearly.

    ODD's p is low: 10 by default, the slides mark about 2 to 12 as good.

    Raises:
        ValueError: the percentile is not in [0, 100], or there is no simulated loss.
    """
    if not 0 <= percentile <= 100 or not len(simulated):
        raise ValueError(f"percentile {percentile} of {len(simulated)} losses; 0..100 of at least one expected")
    return float(np.percentile(simulated, percentile))


def odd_score(losses: Floats) -> Float64:
    """Return `odd`: (N,) float64 -(mean loss), at most 0, higher = cleaner.

    Its negative is the loss that `odd_drop` and `quantile_of` judge.

    Args:
        losses: (E, N) of the last epochs up to ODD's, the paper's being the last of them; a NaN makes a NaN.

    Raises:
        ValueError: not of that shape, or no epoch.
    """
    if losses.ndim != 2 or not len(losses):
        raise ValueError(f"losses (E, N) of at least one epoch expected, found {losses.shape}")
    return np.asarray(0.0 - losses.mean(axis=0, dtype=np.float64))


def odd_drop(losses: Floats, at: float) -> NDArray[np.bool_]:
    """Mark the rows that ODD drops: (N,) loss above the threshold; a NaN stays."""
    return np.asarray(losses > at)


def quantile_of(losses: Floats, simulated: Float64) -> NDArray[np.float32]:
    """Return `odd_quantile`: each loss's position among the simulated ones, ties counted half.

    .03: lower than 97% of random labels would have; so higher = more like a random label. With distinct losses it
    is p/100 within 1 / num at `threshold(simulated, p)`.

    Args:
        losses: (N,); a NaN gives a NaN.
        simulated: (num,) ascending, at least one.

    Returns:
        (N,) float32 in [0, 1].
    """
    below = np.searchsorted(simulated, losses, side="left")
    up_to = np.searchsorted(simulated, losses, side="right")
    position = (below + up_to) / (2 * len(simulated))
    return np.where(np.isnan(losses), np.nan, position).astype(np.float32)


def agreement(planted: Floats, simulated: Float64) -> float:
    """Return the Kolmogorov-Smirnov distance between real and simulated losses, 0 (alike) to 1 [our choice].

    Args:
        planted: (N,) losses of rows whose labels were drawn uniformly over all classes, at the same snapshot.
        simulated: (num,) losses.

    Raises:
        ValueError: one of them is empty, or a loss is NaN.
    """
    if not len(planted) or not len(simulated) or np.isnan(planted).any():
        raise ValueError(f"losses without NaN expected, found {len(planted)} planted and {len(simulated)} simulated")
    # Only the distance is taken; of the p-values this one costs nothing.
    return float(scipy.stats.ks_2samp(planted, simulated, method="asymp").statistic)


def follows(planted: Floats, simulated: Float64) -> bool | None:
    """Whether the simulation follows the planted labels' losses: a distance of at most MAX_DISTANCE [our choice].

    Returns:
        False calls for a warning and another kind; None with fewer than MIN_PLANTED rows, which tell nothing.
    """
    if len(planted) < MIN_PLANTED:
        return None
    return agreement(planted, simulated) <= MAX_DISTANCE
