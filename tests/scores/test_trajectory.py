from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rayclean.scores.trajectory import RunningTrajectory, trajectory_scores
from rayclean.train.sample_losses import sample_losses

SCORES = ["loss", "ens_loss", "margin", "aum", "wrong_events"]


def trajectories(
    num_epochs: int, num_rows: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=(num_epochs, num_rows)).astype(np.float32)
    margin = rng.normal(size=(num_epochs, num_rows)).astype(np.float32)
    return loss, margin, rng.random((num_epochs, num_rows)) < 0.4


@given(st.integers(1, 12), st.integers(0, 9), st.integers(0, 100))
def test_running_scores_equal_the_plain_formulas_at_every_epoch(num_epochs: int, num_rows: int, seed: int) -> None:
    loss, margin, wrong = trajectories(num_epochs, num_rows, seed)
    running = RunningTrajectory(num_rows)
    for e in range(1, num_epochs + 1):
        running.add(loss[e - 1], margin[e - 1], wrong[e - 1])
        plain = {
            "loss": -loss[e - 1],
            "ens_loss": -loss[:e].mean(axis=0, dtype=np.float64),
            "margin": margin[e - 1],
            "aum": margin[:e].mean(axis=0, dtype=np.float64),
            "wrong_events": -wrong[:e].sum(axis=0),
        }
        found = running.scores()
        assert list(found) == SCORES
        for name, values in plain.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-15)
    for name, values in trajectory_scores(loss, margin, wrong).items():
        np.testing.assert_array_equal(values, running.scores()[name])


def test_higher_is_cleaner_in_all() -> None:
    learned, never = [0.1, 5.0], [4.0, -3.0]
    loss, margin = np.array([learned[:1] + never[:1]] * 3), np.array([[5.0, -3.0]] * 3)
    for values in trajectory_scores(loss, margin, margin < 0).values():
        assert values[0] > values[1]


def test_scores_handed_out_do_not_change_later() -> None:
    loss, margin, wrong = trajectories(2, 5)
    running = RunningTrajectory(5)
    running.add(loss[0], margin[0], wrong[0])
    before = running.scores()
    kept = {name: values.copy() for name, values in before.items()}
    running.add(loss[1], margin[1], wrong[1])
    for name in SCORES:
        np.testing.assert_array_equal(before[name], kept[name])


def test_no_epoch_and_wrong_shapes_are_refused() -> None:
    loss, margin, wrong = trajectories(2, 5)
    with pytest.raises(ValueError, match="at least one epoch"):
        RunningTrajectory(5).scores()
    with pytest.raises(ValueError, match=r"epoch 1: shape \(4,\) expected"):
        RunningTrajectory(4).add(loss[0], margin[0], wrong[0])
    with pytest.raises(ValueError, match=r"\(E, N\)"):
        trajectory_scores(loss, margin[:1], wrong)


logits_and_labels = st.integers(2, 6).flatmap(
    lambda num_classes: st.tuples(
        hnp.arrays(np.float32, (4, num_classes), elements=st.floats(-50, 50, width=32)),
        hnp.arrays(np.int64, 4, elements=st.integers(0, num_classes - 1)),
    )
)


@given(logits_and_labels)
def test_losses_equal_the_plain_formulas(case: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = case
    loss, margin, wrong = sample_losses(logits, labels)
    for i, (z, y) in enumerate(zip(logits.astype(np.longdouble), labels, strict=True)):
        np.testing.assert_allclose(loss[i], -np.log(np.exp(z[y]) / np.exp(z).sum()), rtol=1e-9, atol=1e-17)
        assert margin[i] == float(z[y]) - max(float(z[k]) for k in range(len(z)) if k != y)
        assert wrong[i] == (np.argmax(z) != y)


def test_losses_near_0_and_far_up_keep_their_digits() -> None:
    logits = np.array([[100.0, 0.0], [100.0, 0.0], [3e38, -3e38]], dtype=np.float32)
    loss, _, wrong = sample_losses(logits, np.array([0, 1, 1]))
    np.testing.assert_allclose(loss, [np.exp(-100.0), 100.0, 6e38], rtol=1e-6)
    assert wrong.tolist() == [False, True, True]


def test_one_class_has_no_loss_and_its_logit_as_margin() -> None:
    loss, margin, wrong = sample_losses(np.array([[-2.0], [3.0]], dtype=np.float32), np.zeros(2, dtype=np.int32))
    assert loss.tolist() == [0.0, 0.0]
    assert margin.tolist() == [-2.0, 3.0]
    assert wrong.tolist() == [False, False]


def test_no_rows_give_no_losses() -> None:
    loss, margin, wrong = sample_losses(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert loss.shape == margin.shape == wrong.shape == (0,)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, np.nan], [0.0, 1.0]], [0, 1], "1 of 2 rows"),
        ([[0.0, np.inf], [0.0, 1.0]], [0, 1], "1 of 2 rows"),
        ([[0.0, 1.0]], [2], r"labels 2\.\.2 found, 0\.\.1 expected"),
        ([[0.0, 1.0]], [-1], r"labels -1\.\.-1 found"),
        ([[0.0, 1.0]], [0, 1], r"\(1, 2\) and \(2,\)"),
    ],
)
def test_bad_logits_and_labels_are_refused(logits: list[list[float]], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_losses(np.array(logits, dtype=np.float32), np.array(labels))
