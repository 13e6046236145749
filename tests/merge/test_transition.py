"""How labels go wrong: anchors, the matrix that is counted on them, and a noisier one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import dirichlet_multinomial

from rayclean.merge.transition import _evidence, find_anchors, noisier, pooled_transition, surest
from tests.merge.beliefs import next_class, symmetric


def test_chance_structure_fades() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(40, row) for row in symmetric(10, 0.4)]).astype(float)
    beside = ~np.eye(10, dtype=bool)
    spread = (counts / 40)[beside].std()
    assert pooled_transition(counts)[beside].std() < spread / 5
    structured = np.array([rng.multinomial(40, row) for row in next_class(10, 0.4)]).astype(float)
    assert np.diag(pooled_transition(structured), 1).mean() > 0.25


def test_the_evidence_is_that_of_dirichlet_rows() -> None:
    counts, mean = np.array([[3.0, 1, 0], [0, 2, 2]]), np.array([[0.6, 0.2, 0.2], [0.1, 0.5, 0.4]])
    expected = 0.0
    for row, share in zip(counts, mean, strict=True):
        expected += float(dirichlet_multinomial.logpmf(row.astype(int), 7 * share, np.array(int(row.sum()))))
        expected -= float(gammaln(row.sum() + 1) - gammaln(row + 1).sum())  # the order of the draws
    assert _evidence(counts, mean, 7) == pytest.approx(expected, rel=1e-12)


def test_anchors_are_the_surest_rows_of_each_class() -> None:
    rng = np.random.default_rng(0)
    belief = rng.normal(size=(500, 4)) * [1, 1, 1, 0.1]
    rows, classes = find_anchors(*surest(belief), share=0.2, least=20)
    ordered = np.sort(belief, axis=1)
    gap = ordered[:, -1] - ordered[:, -2]
    assert (belief.argmax(axis=1)[rows] == classes).all()
    assert (np.diff(rows) > 0).all()
    for k in range(4):
        here, chosen = np.flatnonzero(belief.argmax(axis=1) == k), rows[classes == k]
        assert len(chosen) == max(min(20, len(here)), int(np.ceil(0.2 * len(here))))
        assert gap[chosen].min() >= gap[np.setdiff1d(here, chosen)].max(initial=-1)


def test_a_class_without_anchors_borrows() -> None:
    counts = np.array([[90.0, 10, 0], [5, 95, 0], [0, 0, 0]])
    found = pooled_transition(counts)
    assert found[2, 2] == pytest.approx((90 + 95 + 1) / 202)
    assert found[2, 0] == found[2, 1]
    np.testing.assert_allclose(found.sum(axis=1), 1)


@given(st.integers(2, 6), st.floats(1, 50), st.integers(0, 99))
def test_a_noisier_matrix_has_larger_odds_and_the_same_shape(num_classes: int, ratio: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(num_classes), num_classes)
    found = noisier(matrix, ratio)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    right, before = np.diag(found), np.diag(matrix)
    np.testing.assert_allclose((1 - right) / right, ratio * (1 - before) / before, rtol=1e-6)
    off = ~np.eye(num_classes, dtype=bool)
    share = found / (1 - right)[:, None]
    np.testing.assert_allclose(share[off], (matrix / (1 - before)[:, None])[off], rtol=1e-6)


def test_a_matrix_without_noise_stays() -> None:
    np.testing.assert_array_equal(noisier(np.eye(3), 5.0), np.eye(3))
