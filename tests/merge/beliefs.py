"""Made beliefs, and labels that go wrong by a transition matrix."""

from __future__ import annotations

import numpy as np

from rayclean.schema import Array


def made(
    num_rows: int, transition: Array, seed: int = 0, sure: float = 1.2, prior: Array | None = None
) -> tuple[Array, Array, Array]:
    """Beliefs that know the true class roughly, given labels by a transition matrix, and the truth."""
    rng, num_classes = np.random.default_rng(seed), len(transition)
    truth = rng.choice(num_classes, num_rows, p=prior)
    logits = rng.normal(size=(num_rows, num_classes)) + sure * 2 * np.eye(num_classes)[truth]
    beliefs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(num_classes, p=transition[k]) for k in truth])
    return beliefs, labels, truth


def symmetric(num_classes: int, rate: float) -> Array:
    return (1 - rate) * np.eye(num_classes) + rate / num_classes


def next_class(num_classes: int, rate: float) -> Array:
    return (1 - rate) * np.eye(num_classes) + rate * np.roll(np.eye(num_classes), 1, axis=1)
