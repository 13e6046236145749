"""The Hessian is torch's, and both ways of solving invert it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from rayclean.schema import Array
from rayclean.scores import influence_solvers
from rayclean.scores.influence import with_bias
from rayclean.scores.influence_solvers import (
    SPECTRUM_QUANTILES,
    ConjugateGradientSolver,
    DenseSolver,
    Hessian,
    make_solver,
    rademacher,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def random_hessian(
    num_rows: int = 30, num_classes: int = 3, num_features: int = 4, damping: float = 0.01, seed: int = 0
) -> Hessian:
    rng = np.random.default_rng(seed)
    probabilities = softmax(2 * rng.normal(size=(num_rows, num_classes)), axis=1)
    return Hessian(probabilities, rng.normal(size=(num_rows, num_features)).astype(np.float16), damping)


def random_vectors(num: int, hessian: Hessian, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(num, *hessian.shape))


@pytest.mark.parametrize("num_classes", [1, 2, 4])
def test_it_equals_the_hessian_of_torch(num_classes: int) -> None:
    """Of the mean cross-entropy of a network with a hidden layer, in its last layer's weights and bias."""
    generator = torch.Generator().manual_seed(0)
    inputs, hidden = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 3), (3, 4)))
    parameters = torch.randn(num_classes, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (9,), generator=generator)
    features = torch.tanh(inputs @ hidden)

    def loss(layer: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(features @ layer[:, :-1].T + layer[:, -1], labels)

    expected = torch.func.hessian(loss)(parameters).numpy().reshape(parameters.numel(), -1)
    expected += 0.3 * np.eye(len(expected))
    probabilities = softmax(with_bias(features.numpy()) @ parameters.numpy().T, axis=1)
    hessian = Hessian(probabilities, features.numpy(), 0.3)
    np.testing.assert_allclose(hessian.matrix(), expected, rtol=0, atol=1e-12)
    vectors = random_vectors(6, hessian)
    found = hessian.products(vectors)
    np.testing.assert_allclose(found.reshape(6, -1), vectors.reshape(6, -1) @ expected, rtol=0, atol=1e-12)
    assert hessian.mean_eigenvalue == pytest.approx(np.trace(expected) / len(expected), rel=1e-12)


@settings(max_examples=25)
@given(
    num_rows=st.integers(1, 20),
    num_classes=st.integers(1, 5),
    num_features=st.integers(1, 5),
    num_vectors=st.integers(1, 5),
    chunk=st.sampled_from([1, 30, 1 << 22]),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_the_matrix_however_the_rows_are_cut(
    num_rows: int, num_classes: int, num_features: int, num_vectors: int, chunk: int, seed: int
) -> None:
    hessian = random_hessian(num_rows, num_classes, num_features, 0.02, seed)
    vectors = random_vectors(num_vectors, hessian)
    matrix = hessian.matrix()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rayclean.scores.influence.CHUNK_NUMBERS", chunk)
        np.testing.assert_allclose(hessian.matrix(), matrix, rtol=0, atol=1e-12)
        found = hessian.products(vectors)
    np.testing.assert_allclose(found.reshape(num_vectors, -1), vectors.reshape(num_vectors, -1) @ matrix, atol=1e-11)
    assert (matrix == matrix.T).all()


def test_adding_one_vector_to_all_classes_meets_the_damping_alone() -> None:
    hessian = random_hessian()
    vector = np.broadcast_to(np.random.default_rng(0).normal(size=5), (1, 3, 5))
    np.testing.assert_allclose(hessian.products(vector), 0.01 * vector, rtol=0, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(hessian.matrix())
    assert (eigenvalues < 0.01 + 1e-12).sum() == 5  # rank (K-1)(d+1)
    assert eigenvalues.min() == pytest.approx(0.01, abs=1e-12)


@pytest.mark.parametrize("damping", [1e-4, 0.01, 10.0])
@pytest.mark.parametrize("shape", [(200, 10, 20), (5, 4, 12), (1, 1, 1)])
def test_both_ways_of_solving_invert_the_hessian(shape: tuple[int, int, int], damping: float) -> None:
    hessian = random_hessian(*shape, damping)
    right = random_vectors(7, hessian)
    dense = DenseSolver(hessian)
    by_dense, by_gradients = dense.solve(right), ConjugateGradientSolver(hessian).solve(right)
    scale = np.abs(by_dense).max()
    np.testing.assert_allclose(hessian.products(by_dense), right, rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_gradients, by_dense, rtol=0, atol=1e-6 * scale)
    by_inverse = right.reshape(7, -1) @ dense.inverse()
    np.testing.assert_allclose(by_inverse, by_dense.reshape(7, -1), rtol=0, atol=1e-9 * scale)


def test_conjugate_gradients_reach_the_tolerance_for_each_right_hand_side() -> None:
    """Easy and hard, large and tiny ones go together; zeros stay zeros."""
    hessian = random_hessian(100, 5, 8, 1e-3)
    right = random_vectors(6, hessian)
    right[1] *= 1e-200  # its square is below float64
    right[2] = 0
    right[3] = hessian.products(right[:1])[0]
    given = right.copy()
    found = ConjugateGradientSolver(hessian, tolerance=1e-6).solve(right)
    error = (hessian.products(found) - right).reshape(6, -1)
    for i in (0, 1, 3, 4, 5):
        scale = np.abs(right[i]).max()
        assert np.linalg.norm(error[i] / scale) <= 1.1e-6 * np.linalg.norm(right[i] / scale)
    assert not found[2].any()
    np.testing.assert_array_equal(right, given)


def test_conjugate_gradients_that_do_not_converge_say_so() -> None:
    hessian = random_hessian(100, 5, 8, 1e-6)
    right = random_vectors(3, hessian)
    right[1] = 0
    with pytest.raises(ValueError, match=r"2 of 3 right-hand sides .* after 4 iterations, 1\.0e-08 expected") as error:
        ConjugateGradientSolver(hessian, max_iterations=4).solve(right)
    assert isinstance(error.value, np.linalg.LinAlgError)
    assert "raise the damping (now 1e-06)" in str(error.value)


def test_spectra_agree_with_the_eigenvalues() -> None:
    hessian = random_hessian(damping=0.02)
    eigenvalues = np.linalg.eigvalsh(hessian.matrix())
    dense, extremes = DenseSolver(hessian).spectrum(), ConjugateGradientSolver(hessian).spectrum()
    np.testing.assert_allclose(dense.quantiles, np.quantile(eigenvalues, SPECTRUM_QUANTILES), rtol=1e-9)
    np.testing.assert_allclose(extremes.quantiles[[0, -1]], eigenvalues[[0, -1]], rtol=1e-9)
    assert np.isnan(extremes.quantiles[1:-1]).all()
    assert dense.mean == extremes.mean == pytest.approx(eigenvalues.mean(), rel=1e-12)
    assert dense.damping_share == pytest.approx(0.02 / eigenvalues.mean(), rel=1e-12)


def test_a_network_without_doubt_is_all_damping() -> None:
    hessian = Hessian(np.eye(3)[[0, 1, 2, 0]], np.ones((4, 2)), 0.01)
    for solver in (DenseSolver(hessian), ConjugateGradientSolver(hessian)):
        spectrum = solver.spectrum()
        assert spectrum.damping_share == 1
        np.testing.assert_allclose(spectrum.quantiles[[0, -1]], 0.01, rtol=1e-9)
        np.testing.assert_allclose(solver.solve(np.ones((1, 3, 3))), 100, rtol=1e-9)


@pytest.mark.parametrize(("bound", "kind"), [(15, DenseSolver), (14, ConjugateGradientSolver)])
def test_the_size_decides_how_to_solve(
    bound: int, kind: type[DenseSolver | ConjugateGradientSolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence_solvers, "DENSE_PARAMETERS", bound)
    hessian = random_hessian()
    assert hessian.num_parameters == 15
    assert isinstance(make_solver(hessian), kind)  # type: ignore[misc, unused-ignore]


@pytest.mark.parametrize(
    ("num_probabilities", "num_features", "damping", "message"),
    [(4, 4, 0.0, "above 0"), (4, 4, float("nan"), "above 0"), (4, 3, 0.01, "same rows"), (0, 0, 0.01, "same rows")],
)
def test_hessians_that_cannot_be_are_refused(
    num_probabilities: int, num_features: int, damping: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Hessian(np.full((num_probabilities, 2), 0.5), np.ones((num_features, 3)), damping)


def test_probes_are_signs_that_the_seed_decides() -> None:
    probes = rademacher(400, (3, 5), seed=7)
    assert probes.shape == (400, 3, 5)
    assert set(np.unique(probes)) == {-1.0, 1.0}
    np.testing.assert_array_equal(probes[:10], rademacher(10, (3, 5), seed=7))
    assert (probes != rademacher(400, (3, 5), seed=8)).any()
    flat = probes.reshape(400, -1)
    np.testing.assert_allclose(flat.T @ flat / 400, np.eye(15), atol=0.25)  # 5 standard deviations


def test_the_error_of_probes_is_the_stated_one() -> None:
    """Of the squared norm of a vector of many like entries; fewer of them err less."""
    vector = np.random.default_rng(0).normal(size=(10, 10))
    estimates = [np.mean(np.einsum("mkj,kj->m", rademacher(50, (10, 10), s), vector) ** 2) for s in range(400)]
    assert np.std(estimates) / np.sum(vector**2) == pytest.approx(relative_error(50), rel=0.15)
    one = np.eye(10) * (np.arange(10) == 0)
    assert np.mean(np.einsum("mkj,kj->m", rademacher(50, (10, 10), 0), one) ** 2) == 1
