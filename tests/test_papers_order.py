"""The papers' claim on real pictures: once labels are memorised the loss is blind, and interpolation still sees."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from rayclean import LabelScorer

SCORES = ("loss", "margin", "ens_loss", "aum", "iofm", "iofm_last")


@pytest.fixture(scope="module")
def curves(one_thread: None) -> dict[str, list[float]]:
    """AUROC of each score over the epochs: 600 digits, 30% of the labels moved, no augmentation, small batches."""
    digits = load_digits()
    small = (digits.images[:600] * (255 / 16)).astype(np.uint8)
    images = np.repeat(np.kron(small, np.ones((1, 2, 2), np.uint8))[..., None], 3, axis=3)
    rng, truth = np.random.default_rng(0), digits.target[:600]
    wrong = rng.random(600) < 0.3
    labels = np.where(wrong, (truth + rng.integers(1, 10, 600)) % 10, truth)
    train = {"epochs": 60, "snapshot_every": 10, "augment": "none", "batch_size": 32}
    scorer = LabelScorer(scores=SCORES, train=train).fit(images, labels)
    return {name: [float(roc_auc_score(~wrong, values)) for _, values in scorer.score_epochs(name)] for name in SCORES}


def test_the_final_loss_is_far_under_its_best(curves: dict[str, list[float]]) -> None:
    for name in ("loss", "margin"):
        assert max(curves[name]) > 0.97
        assert curves[name][-1] < max(curves[name]) - 0.2


def test_interpolation_and_means_over_epochs_hold(curves: dict[str, list[float]]) -> None:
    for name in ("iofm", "ens_loss", "aum"):
        assert curves[name][-1] > max(0.95, max(curves[name]) - 0.05)
    assert curves["iofm_last"][-1] > curves["loss"][-1] + 0.15
