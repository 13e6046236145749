"""Noise that depends on the picture: the kind `instance` [Xia et al., NeurIPS 2020: their generator].

Letters: N rows, K classes, S pixels per side, d = 3 S^2 numbers per image; r = rate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, softmax

from rayclean.catalog.noise import (
    FLIP_SALT,
    LABEL_SALT,
    Float64,
    Int32,
    Ints,
    NoiseRows,
    check_noise,
    check_rows,
    cumulative,
)
from rayclean.storage.draws import UInt64, seeded_hash, uniform

RATE_SALT, PROJECTION_SALT = "noise.rate", "noise.projection"
RATE_STD = 0.1  # of the flip rates [Xia et al.]
IMAGES_AT_ONCE = 64  # 77 MB of float64 at 224 pixels


def instance(rows: NoiseRows) -> Int32:
    """Return `instance_labels` of rows with images."""
    assert rows.images is not None  # see NoiseKind.reads_images
    return instance_labels(rows.images, rows.truth, rows.draw_ids, rows.num_classes, rows.one_rate, rows.seed)


def instance_labels(
    images: NDArray[np.uint8], truth: Ints, draw_ids: UInt64, num_classes: int, rate: float, seed: int
) -> Int32:
    """Return given labels whose noise depends on the image [Xia et al., NeurIPS 2020: their generator].

    Theirs: for each sample a flip rate q ~ N(r, .1^2) cut to [0, 1]; for each true class y a projection W_y (d x K)
    of independent N(0, 1) numbers; the label is y with probability 1 - q, else drawn from softmax(x W_y) over the
    other classes. The cut moves the mean of q near the ends: .080 at r = 0, .129 at .1, .206 at .2, .300 at .3.

    Ours: x = (pixel / 255 - 1/2) / (1/4), whatever the network's normalisation. Their code takes pixels 0..255, whose
    common mean sends most images of a class to the same wrong label. Logits still spread by about sqrt(d), so that
    an image has nearly one wrong label. Draws are hashes; W_y comes from (seed, y) alone, rounded to 2^-16, so that
    its product with whole numbers is exact and no block size or machine changes it. W_y is made for each class in
    the block, d K numbers: of large images hand in small copies, of the same size in all blocks.

    Args:
        images: (N, S, S, 3) uint8.
        truth: (N,) true labels, 0..K-1.
        draw_ids: (N,) uint64 identities of the samples.
        num_classes: K, at least 2.
        rate: r in [0, 1].
        seed: any integer (`run.seed`).

    Returns:
        (N,) int32.

    Raises:
        ConfigError: `noise.rate` or the number of classes cannot be right.
        ValueError: a true label is out of range, or the shapes do not fit.
    """
    check_noise("instance", num_classes, rate)
    check_rows(truth, draw_ids, num_classes)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(truth):
        raise ValueError(f"({len(truth)}, S, S, 3) uint8 images expected, found {images.shape} {images.dtype}")
    flips = uniform(seed, FLIP_SALT, draw_ids) < truncated_normal(uniform(seed, RATE_SALT, draw_ids), rate)
    which = uniform(seed, LABEL_SALT, draw_ids)
    given = truth.astype(np.int32)
    for label in np.unique(truth[flips]).tolist():
        weights = projection(seed, label, math.prod(images.shape[1:]), num_classes)
        rows = np.flatnonzero(flips & (truth == label))
        for first in range(0, len(rows), IMAGES_AT_ONCE):
            here = rows[first : first + IMAGES_AT_ONCE]
            # (p/255 - 1/2) / (1/4) = (2p - 255) / 127.5
            logits = (2.0 * images[here].reshape(len(here), -1) - 255.0) @ weights / 127.5
            logits[:, label] = -np.inf
            given[here] = (which[here, None] >= cumulative(softmax(logits, axis=1))).sum(axis=1)
    return given


def truncated_normal(uniforms: Float64, rate: float) -> Float64:
    """Return flip rates: uniform draws through the inverse distribution function of N(rate, .1^2) cut to [0, 1]."""
    low, high = ndtr((0 - rate) / RATE_STD), ndtr((1 - rate) / RATE_STD)
    return np.clip(rate + RATE_STD * ndtri(low + uniforms * (high - low)), 0.0, 1.0)


def projection(seed: int, label: int, num_pixels: int, num_classes: int) -> Float64:
    """Return W_y of a true class: (d, K) float64 N(0, 1) numbers, rounded to multiples of 2^-16."""
    stream = seeded_hash(seed, PROJECTION_SALT, np.array([label], dtype=np.uint64))
    weights = np.random.Generator(np.random.PCG64(int(stream[0]))).standard_normal((num_pixels, num_classes))
    return np.asarray(np.round(weights * 2.0**16) / 2.0**16)
