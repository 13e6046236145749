"""Noise that depends on the true class alone; each function is a kind of `rayclean.config.noise_kinds`.

Letters: N rows, K classes, r = rate; u = a draw in [0, 1).
"""

from __future__ import annotations

import numpy as np

from rayclean.catalog.noise import LABEL_SALT, Float64, Int32, Ints, NoiseRows, cumulative, flip
from rayclean.storage.draws import uniform

# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog; the other five classes stay.
CIFAR10_TARGETS = np.array([0, 1, 0, 5, 7, 3, 6, 7, 8, 1])


def symmetric(rows: NoiseRows) -> Int32:
    """Return labels that are, with probability r, uniform over all K classes, the true one included."""
    return flip(rows, rows.one_rate, _any_class)


def symmetric_exclusive(rows: NoiseRows) -> Int32:
    """Return labels that are, with probability r, uniform over the other K-1 classes."""
    return flip(rows, rows.one_rate, _other_class)


def asymmetric_cifar10(rows: NoiseRows) -> Int32:
    """Return labels that are, with probability r, those of `CIFAR10_TARGETS`."""
    return flip(rows, rows.one_rate, lambda truth, _, __: CIFAR10_TARGETS[truth])


def next_class(rows: NoiseRows) -> Int32:
    """Return labels that are, with probability r, c + 1 mod K."""
    return flip(rows, rows.one_rate, lambda truth, _, num_classes: (truth + 1) % num_classes)


def per_class(rows: NoiseRows) -> Int32:
    """Return labels that are, with the probability of their class, uniform over the other K-1 classes."""
    rates = class_rates(rows.num_classes, rows.one_rate) if rows.rates is None else rows.rates
    return flip(rows, rates[rows.truth], _other_class)


def matrix(rows: NoiseRows) -> Int32:
    """Return labels drawn from row y of P(given | true); what flips is not nested in the rate here."""
    assert rows.matrix is not None  # check_noise lets none through
    which = uniform(rows.seed, LABEL_SALT, rows.draw_ids)
    given = np.empty(len(rows.truth), np.int32)
    for label in np.unique(rows.truth):
        here = rows.truth == label
        given[here] = np.searchsorted(cumulative(rows.matrix[label]), which[here], side="right")
    return given


def class_rates(num_classes: int, rate: float) -> Float64:
    """Return (K,) rates of mean r that rise evenly with the class, as wide as [0, 1] allows [our choice].

    From 0 to 2r for r <= 1/2, from 2r - 1 to 1 above. With `long_tail` the rare classes are the noisy ones.
    """
    half_width = min(rate, 1 - rate)
    return np.linspace(rate - half_width, rate + half_width, num_classes)


def _any_class(truth: Ints, which: Float64, num_classes: int) -> Ints:
    return (which * num_classes).astype(np.int64)  # u K rounds to less than K for every double u < 1


def _other_class(truth: Ints, which: Float64, num_classes: int) -> Ints:
    other = _any_class(truth, which, num_classes - 1)
    return other + (other >= truth)
