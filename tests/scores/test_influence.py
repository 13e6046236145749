"""Influences through outer products equal those of whole gradients, which torch differentiates by itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from rayclean.schema import Array
from rayclean.scores.influence import (
    class_deviation,
    clip_means,
    damping_share,
    gradient_norms,
    gradient_products,
    gradients,
    influence_norms,
    probe_norms,
    residuals,
    validation_influence,
    with_bias,
)
from rayclean.scores.influence_solvers import DenseSolver, Hessian, rademacher, relative_error

pytestmark = pytest.mark.usefixtures("one_thread")


class Rows(NamedTuple):
    """Random rows before a last layer."""

    features: Array
    logits: Array
    labels: Array

    @property
    def residual(self) -> Array:
        return residuals(self.logits, self.labels)


def random_rows(num_rows: int, num_classes: int, num_features: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, num_features)).astype(np.float16)
    logits = features.astype(np.float64) @ rng.normal(size=(num_features, num_classes)) + rng.normal(size=num_classes)
    return Rows(features, logits, rng.integers(0, num_classes, num_rows))


def random_solver(num_classes: int, num_features: int, damping: float = 0.05, seed: int = 1) -> DenseSolver:
    rows = random_rows(60, num_classes, num_features, seed)
    return DenseSolver(Hessian(softmax(rows.logits, axis=1), rows.features, damping))


def random_clips(num_rows: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    num_clips = max(1, num_rows // 3)
    return rng.permutation(np.r_[np.arange(num_clips), rng.integers(0, num_clips, num_rows - num_clips)])


sizes = {"num_rows": st.integers(1, 12), "num_classes": st.integers(1, 5), "num_features": st.integers(1, 6)}


@settings(max_examples=25)
@given(**sizes, seed=st.integers(0, 1000))
def test_gradients_equal_those_of_torch(num_rows: int, num_classes: int, num_features: int, seed: int) -> None:
    """Of a network with a hidden layer, in its last layer's weights and bias."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, hidden = draw(num_rows, 3), draw(3, num_features)
    parameters = draw(num_classes, num_features + 1)
    labels = torch.randint(num_classes, (num_rows,), generator=generator)

    def loss(layer: torch.Tensor, one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = layer[:, :-1] @ torch.tanh(one @ hidden) + layer[:, -1]
        return torch.nn.functional.cross_entropy(logits, label)

    expected = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels).numpy()
    features = torch.tanh(inputs @ hidden).numpy()
    residual = residuals(with_bias(features) @ parameters.numpy().T, labels.numpy())
    found = gradients(residual, features)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    lengths = np.linalg.norm(expected.reshape(num_rows, -1), axis=1)
    np.testing.assert_allclose(gradient_norms(residual, features), lengths, rtol=1e-9, atol=1e-14)


def test_saturated_residuals_keep_their_digits() -> None:
    residual = residuals(np.array([[60.0, 0, 0], [60, 0, 0], [800, 0, 0], [800, 0, 0]]), np.array([0, 1, 0, 1]))
    tiny = np.exp(-60.0)
    np.testing.assert_allclose(residual[0], [-2 * tiny, tiny, tiny], rtol=1e-12)
    np.testing.assert_allclose(residual[1], [1, -1, tiny], rtol=1e-12)
    np.testing.assert_array_equal(residual[2:], [[0, 0, 0], [1, -1, 0]])  # exp(-800) is below float64
    assert not np.signbit(residual[2]).any()


def test_residuals_of_small_floats_are_those_of_their_values() -> None:
    rows = random_rows(20, 4, 3)
    small = rows.logits.astype(np.float16)
    np.testing.assert_array_equal(residuals(small, rows.labels), residuals(small.astype(np.float64), rows.labels))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, np.nan], [0.0, 1.0]], [0, 1], "1 of 2 rows"),
        ([[0.0, 1.0]], [2], r"labels 2\.\.2 found, 0\.\.1 expected"),
        ([[0.0, 1.0]], [-1], r"labels -1\.\.-1 found"),
        ([[0.0, 1.0]], [0, 1], r"\(1, 2\) and \(2,\)"),
    ],
)
def test_bad_logits_and_labels_are_refused(logits: list[list[float]], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        residuals(np.array(logits), np.array(labels))


@settings(max_examples=40)
@given(**sizes, num_matrices=st.integers(1, 5), chunk=st.sampled_from([1, 40, 1 << 22]), seed=st.integers(0, 1000))
def test_products_and_norms_equal_the_plain_formulas(
    num_rows: int, num_classes: int, num_features: int, num_matrices: int, chunk: int, seed: int
) -> None:
    """With the whole gradients g: <U, g>, and ||H^-1 g||, however the rows are cut; also for the means of clips."""
    rows = random_rows(num_rows, num_classes, num_features, seed)
    whole = gradients(rows.residual, rows.features).reshape(num_rows, -1)
    clips = random_clips(num_rows, seed)
    means = np.stack([whole[clips == g].mean(axis=0) for g in range(clips.max() + 1)])
    solved = np.random.default_rng(seed).normal(size=(num_matrices, num_classes, num_features + 1))
    flat = solved.reshape(num_matrices, -1)
    inverse = random_solver(num_classes, num_features).inverse()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rayclean.scores.influence.CHUNK_NUMBERS", chunk)
        products = gradient_products(solved, rows.residual, rows.features)
        influence = validation_influence(solved, rows.residual, rows.features)
        norms = influence_norms(inverse, rows.residual, rows.features)
        norms_of_clips = influence_norms(inverse, rows.residual, rows.features, clips)
        lengths = gradient_norms(rows.residual, rows.features)
    np.testing.assert_allclose(products, whole @ flat.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(influence, -whole @ flat.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(clip_means(products, clips), means @ flat.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(norms, np.linalg.norm(whole @ inverse, axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(norms_of_clips, np.linalg.norm(means @ inverse, axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(lengths, np.linalg.norm(whole, axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(probe_norms(products), np.sqrt(((whole @ flat.T) ** 2).mean(axis=1)), rtol=1e-9)


def test_the_norm_of_a_mean_is_not_the_mean_of_norms() -> None:
    rows, clips = random_rows(12, 3, 4), random_clips(12)
    inverse = random_solver(3, 4).inverse()
    of_mean = influence_norms(inverse, rows.residual, rows.features, clips)
    mean_of = clip_means(influence_norms(inverse, rows.residual, rows.features), clips)
    assert (of_mean <= mean_of + 1e-12).all()
    assert (of_mean < 0.9 * mean_of).any()


@pytest.mark.parametrize("by_clips", [False, True])
def test_probes_approach_the_exact_norms(by_clips: bool) -> None:
    rows, solver = random_rows(40, 3, 5), random_solver(3, 5)
    clips = random_clips(40) if by_clips else np.arange(40)
    exact = influence_norms(solver.inverse(), rows.residual, rows.features, clips)

    def squared_errors(num_probes: int) -> Array:
        solved = solver.solve(rademacher(num_probes, (3, 6), seed=0))
        products = clip_means(gradient_products(solved, rows.residual, rows.features), clips)
        return np.asarray((probe_norms(products) / exact) ** 2 - 1)

    many = squared_errors(2000)
    np.testing.assert_allclose(np.sqrt(1 + many), 1, atol=0.1)
    for num_probes, errors in ((2000, many), (100, squared_errors(100))):
        assert np.sqrt(np.mean(errors**2)) < 1.5 * relative_error(num_probes)
    assert np.abs(squared_errors(100)).max() > np.abs(many).max() > 0


def test_influence_tells_what_leaving_a_row_out_does() -> None:
    """On a layer trained to its regularised optimum, the loss of validation rows changes by -I_D / N."""
    num_rows, num_classes, damping = 40, 3, 0.05
    rows, held = random_rows(num_rows, num_classes, 2, seed=3), random_rows(6, num_classes, 2, seed=4)

    def trained(weights: Array) -> Array:
        """Minimum of sum_i w_i loss_i / N + damping/2 ||theta||^2, by Newton's method."""
        theta = np.zeros((num_classes, 3))
        for _ in range(12):
            logits = with_bias(rows.features) @ theta.T
            f = softmax(logits, axis=1)
            slope = (weights[:, None] * residuals(logits, rows.labels)).T @ with_bias(rows.features) / num_rows
            curvature = np.zeros((theta.size, theta.size))
            for w, p, h in zip(weights, f, with_bias(rows.features), strict=True):
                curvature += w / num_rows * np.kron(np.diag(p) - np.outer(p, p), np.outer(h, h))
            step = np.linalg.solve(curvature + damping * np.eye(theta.size), (slope + damping * theta).ravel())
            theta = theta - step.reshape(theta.shape)
        return theta

    def held_losses(theta: Array) -> Array:
        logits = with_bias(held.features) @ theta.T
        return np.asarray(logsumexp(logits, axis=1) - logits[np.arange(6), held.labels])

    theta = trained(np.ones(num_rows))
    logits = with_bias(rows.features) @ theta.T
    solver = DenseSolver(Hessian(softmax(logits, axis=1), rows.features, damping))
    held_residual = residuals(with_bias(held.features) @ theta.T, held.labels)
    solved = solver.solve(gradients(held_residual, held.features))
    expected = -validation_influence(solved, residuals(logits, rows.labels), rows.features) / num_rows
    without = [held_losses(trained(np.arange(num_rows) != i)) for i in range(num_rows)]
    found = np.stack(without) - held_losses(theta)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.polyfit(expected.ravel(), found.ravel(), 1)[0] == pytest.approx(1, abs=0.15)
    large = np.abs(expected) > np.median(np.abs(expected))
    assert (np.sign(found[large]) == np.sign(expected[large])).all()


def test_the_deviation_is_that_over_the_validation_rows_of_each_class() -> None:
    influence = np.random.default_rng(0).normal(size=(7, 9))
    labels = np.array([0, 2, 0, 2, 2, 0, 1, 2, 4])  # one row of class 1 and of class 4, none of class 3
    found = class_deviation(influence, labels, 5)
    for k in (0, 2):
        of_class = influence[:, labels == k]
        plain = np.sqrt(((of_class - of_class.mean(axis=1, keepdims=True)) ** 2).mean(axis=1))
        np.testing.assert_allclose(found[:, k], plain, rtol=1e-12)
    assert np.isnan(found[:, [1, 3, 4]]).all()
    assert not np.isnan(found[:, [0, 2]]).any()


def test_damping_decides_alone_once_the_network_is_sure() -> None:
    """Then I_M = g / damping, and the influence orders rows by their gradient."""
    rows, damping = random_rows(50, 4, 3), 0.01
    shares = []
    for sharpness in (0.0, 3.0, 1e4):
        logits = sharpness * rows.logits
        residual = residuals(logits, rows.labels)
        solver = DenseSolver(Hessian(softmax(logits, axis=1), rows.features, damping))
        norms = influence_norms(solver.inverse(), residual, rows.features)
        lengths = gradient_norms(residual, rows.features)
        assert (damping * norms <= lengths * (1 + 1e-12)).all()
        shares.append(damping_share(norms, lengths, damping))
    assert 0 < shares[0] < shares[1] < shares[2] <= 1 + 1e-12
    assert shares[0] < 0.3
    assert shares[2] > 0.999
    assert np.isnan(damping_share(np.zeros(2), np.zeros(2), damping))
    assert damping_share(np.array([0, 1, 3, 20.0]), np.array([0, 1, 1, 4.0]), 0.1) == pytest.approx(0.3)


def test_one_class_has_no_influence() -> None:
    rows = random_rows(5, 1, 3)
    assert rows.residual.tolist() == [[0.0]] * 5
    inverse = random_solver(1, 3).inverse()
    assert influence_norms(inverse, rows.residual, rows.features).tolist() == [0.0] * 5
    influence = validation_influence(np.ones((2, 1, 4)), rows.residual, rows.features)
    assert class_deviation(influence, np.zeros(2, np.int64), 1).tolist() == [[0.0]] * 5


def test_no_rows_give_no_influence() -> None:
    rows = random_rows(0, 3, 2)
    assert rows.residual.shape == (0, 3)
    assert gradient_norms(rows.residual, rows.features).shape == (0,)
    influence = validation_influence(np.ones((4, 3, 3)), rows.residual, rows.features)
    assert influence.shape == (0, 4)
    assert influence_norms(np.eye(9), rows.residual, rows.features).shape == (0,)
    assert clip_means(influence, np.zeros(0, np.int64)).shape == (0, 4)


@pytest.mark.parametrize(
    ("clips", "message"),
    [([0, 2, 2], "1 of them have no row"), ([0, -1, 1], "0 or more"), ([0, 1], r"\(3,\) clip ids")],
)
def test_clip_ids_with_gaps_are_refused(clips: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip_means(np.zeros((3, 2)), np.array(clips))
    rows = random_rows(3, 2, 2)
    with pytest.raises(ValueError, match=message):
        influence_norms(np.eye(6), rows.residual, rows.features, np.array(clips))
