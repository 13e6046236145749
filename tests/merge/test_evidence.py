"""Which beliefs are taken together: the mean of some, the power that they were drawn with, and the better source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.merge.blind import explained
from rayclean.merge.evidence import best_mixture, mixture_of, temperature
from rayclean.schema import Array

BASE = 2.0


def powered(beliefs: Array, power: float) -> Array:
    return np.asarray(beliefs**power / (beliefs**power).sum(axis=1, keepdims=True))


def made(num_rows: int = 3000, num_classes: int = 5, noise: float = 0.2) -> tuple[dict[str, Array], Array]:
    """Two views of the classes that err apart, one that knows little, one that knows nothing; and labels."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, num_classes, num_rows)
    wrong = rng.random(num_rows) < noise
    labels = np.where(wrong, rng.integers(0, num_classes, num_rows), truth)
    sure = {"one": 2.0, "other": 2.0, "little": 0.5, "nothing": 0.0}
    logits = {
        name: s * np.eye(num_classes)[truth] + rng.normal(size=(num_rows, num_classes)) for name, s in sure.items()
    }
    return {name: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for name, z in logits.items()}, labels


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_a_mixture_is_the_geometric_mean_relative_to_the_mean_row(
    rows: int, classes: int, many: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    beliefs = [rng.dirichlet(np.ones(classes), rows) for _ in range(many)]
    found = mixture_of(beliefs)
    for row in range(rows):
        product = np.ones(classes)
        for each in beliefs:
            product *= ((each[row] + 1e-9) / (each.mean(axis=0) + 1e-9)) ** (1 / many)
        np.testing.assert_allclose(found[row], product / product.sum(), rtol=1e-9)


def test_a_belief_alone_is_its_own_mixture() -> None:
    rng = np.random.default_rng(0)
    belief = rng.dirichlet(np.ones(4), 500)
    even = np.concatenate([np.roll(belief, k, axis=1) for k in range(4)])  # its mean row is flat
    np.testing.assert_allclose(mixture_of([even]), even, atol=1e-7)
    np.testing.assert_allclose(mixture_of([even, even, even]), even, atol=1e-7)
    np.testing.assert_allclose(mixture_of([np.zeros((3, 4))]), 0.25)


@pytest.mark.parametrize("power", [0.3, 0.7, 1.0, 2.0, 4.0])
def test_the_temperature_is_the_power_that_labels_were_drawn_with(power: float) -> None:
    rng = np.random.default_rng(0)
    beliefs = rng.dirichlet(np.full(4, 0.5), 20_000) + 1e-6
    labels = (powered(beliefs, power).cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert temperature(powered(beliefs, 1), labels) == pytest.approx(power, rel=0.06)
    assert temperature(powered(beliefs, 2), labels) == pytest.approx(power / 2, rel=0.06)


def test_a_source_that_knows_nothing_is_not_taken_alone() -> None:
    sources, labels = made()
    found = best_mixture(sources, labels, BASE)
    assert {"one", "other"} & set(found.names)
    assert len(found.likelihoods) == 2 ** len(sources) - 1
    assert found.likelihoods[found.names] > found.likelihoods[("nothing",)]
    assert found.likelihoods[("one", "other")] > max(found.likelihoods[(name,)] for name in sources)


@pytest.mark.parametrize("worse", ["little", "nothing"])
def test_the_better_source_is_taken(worse: str) -> None:
    sources, labels = made()
    for names in (("one", worse), (worse, "one")):
        found = best_mixture({name: sources[name] for name in names}, labels, BASE, ["one"])
        assert "one" in found.names
        assert found.likelihoods[("one",)] > found.likelihoods[(worse,)]
    upright = {name: sources[name] for name in ("one", "other")}
    assert best_mixture(upright, labels, BASE).names == ("one", "other")


def test_it_is_the_largest_of_those_that_explain_the_labels_as_well() -> None:
    sources, labels = made(800)
    found = best_mixture(sources, labels, BASE)
    for names, likelihood in found.likelihoods.items():
        assert len(names) <= len(found.names) or likelihood < max(found.likelihoods.values())
        assert len(names) != len(found.names) or likelihood <= found.likelihoods[found.names]
    expected = mixture_of([sources[name] for name in found.names])
    np.testing.assert_array_equal(found.belief, expected)
    np.testing.assert_array_equal(found.again(sources), expected)
    assert found.likelihoods[found.names] == explained(expected, labels, found.base)


def test_how_soft_a_source_is_does_not_matter() -> None:
    sources, labels = made()
    sharp, soft = (
        best_mixture({"one": powered(sources["one"], power), "other": sources["other"]}, labels, BASE, ["other"])
        for power in (1, 0.4)
    )
    alone = sharp.likelihoods[("one",)], soft.likelihoods[("one",)]
    assert alone[0] == pytest.approx(alone[1], abs=0.01)
    assert best_mixture({"other": sources["other"]}, labels, BASE).base == pytest.approx(BASE)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_rows", [1, 2, 6])
def test_few_rows_and_flat_beliefs_are_mixed_too(num_rows: int) -> None:
    labels = np.arange(num_rows) % 2
    flat, certain = np.full((num_rows, 2), 0.5), np.eye(2)[labels]
    found = best_mixture({"flat": flat, "certain": certain}, labels, BASE)
    np.testing.assert_allclose(found.belief.sum(axis=1), 1)
    assert np.isfinite(found.base)
