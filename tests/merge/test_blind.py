"""The joint model of beliefs that have not seen the labels: a plain loop, what it recovers, what it must survive."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from rayclean.merge import maximise as em
from rayclean.merge.blind import fit_blind
from rayclean.merge.joint import JointModel
from rayclean.merge.maximise import How, maximise, sharpness_of, start_of
from rayclean.merge.transition import adjusted, find_anchors, noisier, pooled_transition, surest
from rayclean.schema import DROPPED, NONE_OF_CLASSES, Array
from rayclean.scores.sources import BELIEF_FLOOR

HOWS = [How(*flags) for flags in itertools.product((True, False), repeat=3)]


def symmetric(num_classes: int) -> Array:
    return 0.7 * np.eye(num_classes) + 0.3 / num_classes


def of_classes(num_classes: int) -> Array:
    """Each class turns into the next one, at a rate of its own."""
    rates = np.linspace(0.05, 0.4, num_classes)[:, None]
    return np.asarray((1 - rates) * np.eye(num_classes) + rates * np.roll(np.eye(num_classes), 1, axis=1))


def drawn(
    num_rows: int, shares: Array, transition: Array, seed: int = 0, unsure: float = 1.0
) -> tuple[Array, Array, Array, float]:
    """Beliefs, labels and truth of the model itself, and the base under which the sharpness is 1."""
    rng = np.random.default_rng(seed)
    beliefs = rng.dirichlet(unsure * shares / shares.sum(), num_rows) + 1e-9
    beliefs /= beliefs.sum(axis=1, keepdims=True)
    truth = (beliefs.cumsum(axis=1) > rng.random((num_rows, 1))).argmax(axis=1)
    labels = (transition[truth].cumsum(axis=1) > rng.random((num_rows, 1))).argmax(axis=1)
    gap = surest(adjusted(beliefs, np.log(beliefs.mean(axis=0) + BELIEF_FLOOR)))[1]
    return beliefs, labels, truth, 1 / sharpness_of(gap, 1.0)


def noise_of(model: JointModel, beliefs: Array, labels: Array) -> float:
    """Share of wrong labels by what is believed before it is tempered."""
    return float(1 - np.exp(model.log_posterior(beliefs, labels))[np.arange(len(labels)), labels].mean())


def plain_fit(beliefs: Array, labels: Array, verified: Array, sharpness: float, how: How) -> tuple[Array, Array, float]:
    """T, the prior with none of the classes, and the mean log likelihood, row by row."""
    num_rows, num_classes = beliefs.shape
    every = range(num_classes + 1)
    own = np.log(beliefs + BELIEF_FLOOR) - np.log(beliefs.mean(axis=0) + BELIEF_FLOOR)
    rest = [np.log(1 - max(np.exp(row) / np.exp(row).sum())) for row in own]
    usual = np.log(np.mean(np.exp(rest)))
    evidence = [[np.exp(sharpness * value) for value in (*own[i], rest[i] - usual)] for i in range(num_rows)]
    anchors, classes = find_anchors(*surest(own), em.ANCHOR_SHARE)
    counted = np.array([[sum((classes == k) & (labels[anchors] == y)) for y in every[:-1]] for k in every[:-1]])
    by_anchors = pooled_transition(counted.astype(float), clumping=1.0)
    shares = (np.bincount(labels, minlength=num_classes) + 1 / num_classes) / (num_rows + 1)
    none = em.NONE_START if how.none else 0.0
    prior, transition = np.array([(1 - none) / num_classes] * num_classes + [none]), by_anchors
    for step in range(em.STEPS + 1):
        seen, posterior, likelihood = np.zeros((2, num_rows, num_classes + 1)), np.zeros(0), []
        seen, posterior = seen
        for i, label in enumerate(labels):
            weights = [prior[k] * evidence[i][k] for k in every]
            seen[i] = [weight / sum(weights) for weight in weights]
            says = [*transition[:, label], shares[label]]
            likelihood.append(sum(seen[i][k] * says[k] for k in every))
            posterior[i] = [seen[i][k] * says[k] / likelihood[-1] for k in every]
            if verified[i] != -1:
                posterior[i] = np.eye(num_classes + 1)[verified[i] if verified[i] >= 0 else num_classes]
        if step == em.STEPS:
            break
        counts = np.array([[sum(posterior[labels == y, k]) for y in every[:-1]] for k in every[:-1]])
        if how.counted:
            transition = counts + em.ANCHOR_WEIGHT * len(anchors) / num_classes * by_anchors
            transition = transition / transition.sum(axis=1, keepdims=True)
        else:
            odds = []
            for each in (counts / counts.sum(axis=1, keepdims=True), by_anchors):
                right = sum(counts[k].sum() * each[k, k] for k in every[:-1]) / counts.sum()
                odds.append((1 - right) / right)
            transition = noisier(by_anchors, odds[0] / odds[1])
        moved = [posterior[:, k].mean() * prior[k] / seen[:, k].mean() if prior[k] else 0.0 for k in every]
        prior = np.array(moved) / sum(moved)
        if how.balanced:
            prior[:-1] = (1 - prior[-1]) / num_classes
    return transition, prior, float(np.mean(np.log(likelihood)))


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("people", [False, True])
def test_a_fit_equals_a_plain_loop(how: How, people: bool) -> None:
    beliefs, labels, truth, base = drawn(60, np.array([0.4, 0.9, 0.7]), of_classes(3))
    verified = np.full(60, -1)
    if people:
        verified[:6], verified[6] = truth[:6], DROPPED
    found = maximise(start_of(beliefs, labels, base, verified), how)
    transition, prior, likelihood = plain_fit(beliefs, labels, verified, 1.0, how)
    np.testing.assert_allclose(found.transition, transition, rtol=1e-7)
    np.testing.assert_allclose(found.prior, prior[:-1] / prior[:-1].sum(), rtol=1e-7)
    assert found.none == pytest.approx(prior[-1], rel=1e-7)
    assert found.log_likelihood == pytest.approx(likelihood, rel=1e-9)


@pytest.mark.parametrize("noise", [symmetric, of_classes])
@pytest.mark.parametrize("num_classes", [2, 3, 6, 10])
def test_it_recovers_what_it_was_drawn_with(noise: Any, num_classes: int) -> None:
    expected = noise(num_classes)
    beliefs, labels, truth, base = drawn(6000, np.ones(num_classes), expected)
    model = fit_blind(beliefs, labels, base)
    assert model.sharpness == pytest.approx(1)
    np.testing.assert_allclose(model.transition.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(model.transition, expected, atol=0.15)
    np.testing.assert_allclose(model.prior, 1 / num_classes, atol=0.03)
    rate = float((labels != truth).mean())
    assert noise_of(model, beliefs, labels) == pytest.approx(rate, abs=0.03)
    assert model.noise is not None
    assert model.noise[0] - 0.03 < rate < model.noise[1] + 0.03


def test_classes_of_unequal_shares_are_found_so() -> None:
    shares = np.array([0.2, 0.8, 2.0])
    beliefs, labels, truth, base = drawn(6000, shares, symmetric(3))
    start = start_of(beliefs, labels, base, None)
    free, equal = (maximise(start, How(balanced=each, counted=True, none=False)) for each in (False, True))
    np.testing.assert_allclose(free.prior, np.bincount(truth) / 6000, atol=0.12)
    np.testing.assert_allclose(equal.prior, 1 / 3)
    assert free.log_likelihood > equal.log_likelihood
    assert free.wrong == pytest.approx(float((labels != truth).mean()), abs=0.06)


def test_the_interval_holds_what_is_found() -> None:
    for seed in range(4):
        beliefs, labels, _, base = drawn(800, np.ones(4), symmetric(4), seed)
        for factor in (0.5, 1, 2):
            model = fit_blind(beliefs, labels, factor * base)
            assert model.noise is not None
            assert 0 <= model.noise[0] <= noise_of(model, beliefs, labels) <= model.noise[1] <= 1


def test_sharper_beliefs_find_more_wrong_labels() -> None:
    beliefs, labels, _, base = drawn(3000, np.ones(5), symmetric(5))
    rates = [noise_of(fit_blind(beliefs, labels, factor * base), beliefs, labels) for factor in (0.5, 1, 2)]
    assert rates[0] < rates[1] < rates[2]


def test_the_order_of_rows_does_not_matter() -> None:
    beliefs, labels, truth, base = drawn(500, np.ones(4), of_classes(4))
    verified = np.where(np.arange(500) < 20, truth, -1)
    order = np.random.default_rng(1).permutation(500)
    one = fit_blind(beliefs, labels, base, True, verified)
    other = fit_blind(beliefs[order], labels[order], base, True, verified[order])
    for name, value in vars(one).items():
        its = vars(other)[name]
        if isinstance(value, np.ndarray | float | tuple):
            np.testing.assert_allclose(its, value, rtol=0, atol=1e-9, err_msg=name)
        else:
            assert its == value, name


def test_what_people_say_is_taken_for_true() -> None:
    beliefs, labels, _, base = drawn(400, np.ones(3), symmetric(3))
    start = start_of(beliefs, labels, base, np.where(np.arange(400) % 2 == 0, labels, -1))
    loose = maximise(start_of(beliefs, labels, base, None), HOWS[0])
    assert maximise(start, HOWS[0]).wrong < loose.wrong
    people = (labels, None, (labels + 1) % 3)
    right, nobody, wrong = (fit_blind(beliefs, labels, base, verified=each) for each in people)
    assert right.noise == (0.0, 0.0)
    assert wrong.noise is not None
    assert wrong.noise[1] == 1
    rates = [noise_of(model, beliefs, labels) for model in (right, nobody, wrong)]
    assert rates[0] < rates[1] < rates[2]


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.sampled_from(["random", "constant", "certain", "zero"]),
    st.sampled_from(["any", "one label", "verified", "dropped"]),
    st.integers(0, 2**32 - 1),
)
@pytest.mark.filterwarnings("error")
def test_whatever_comes_gives_probabilities(num_rows: int, num_classes: int, kind: str, how: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 1 if how == "one label" else num_classes, num_rows)
    beliefs = {
        "random": rng.dirichlet(np.ones(num_classes), num_rows),
        "constant": np.full((num_rows, num_classes), 1 / num_classes),
        "certain": np.eye(num_classes)[rng.integers(0, num_classes, num_rows)],
        "zero": np.zeros((num_rows, num_classes)),
    }[kind]
    some = np.where(rng.random(num_rows) < 0.5, rng.integers(0, num_classes, num_rows), -1)
    verified = {"verified": some, "dropped": np.full(num_rows, DROPPED)}.get(how)
    model = fit_blind(beliefs, labels, 2.0, bool(seed % 2), verified)
    assert model.prior.sum() == pytest.approx(1)
    assert ((model.prior > 0) & (model.transition > 0).all(axis=1)).all()
    assert model.noise is not None
    assert 0 <= model.noise[0] <= model.noise[1] <= 1
    found = model.posterior(beliefs, labels)
    for column in (found.label_score, found.predicted_score):
        assert ((column >= 0) & (column <= 1)).all()
    assert ((found.predicted >= 0) | ((found.predicted == NONE_OF_CLASSES) & (model.none > 0))).all()
    again = JointModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again.noise == model.noise
    assert again.posterior(beliefs, labels).label_score.tobytes() == found.label_score.tobytes()


def test_the_sharpness_has_no_unit() -> None:
    gap = np.abs(np.random.default_rng(0).normal(size=300))
    assert (
        sharpness_of(7 * gap, 2.0) == pytest.approx(sharpness_of(gap, 2.0)) == pytest.approx(2 * sharpness_of(gap, 1))
    )
    fewer_ties = np.where(gap < np.median(gap) / 2, np.median(gap), gap)
    assert sharpness_of(fewer_ties, 1.0) > sharpness_of(gap, 1.0)
    assert sharpness_of(np.zeros(3), 2.0) == 2.0


@pytest.mark.parametrize("num_classes", [5, 10])
def test_rows_of_none_of_the_classes_are_found_where_there_are_some(num_classes: int) -> None:
    few_wrong = 0.9 * np.eye(num_classes) + 0.1 / num_classes
    beliefs, labels, _, base = drawn(3000, np.ones(num_classes), few_wrong, unsure=0.3)
    assert fit_blind(beliefs, labels, 2 * base, none=True).none == 0
    rng, none = np.random.default_rng(1), np.arange(3000) < 300
    beliefs[none], labels[none] = rng.dirichlet(np.ones(num_classes), 300), rng.integers(0, num_classes, 300)
    assert fit_blind(beliefs, labels, 2 * base).none == 0
    model = fit_blind(beliefs, labels, 2 * base, none=True)
    assert 0.02 < model.none < 0.4
    likeliest = model.log_posterior(beliefs, labels).argmax(axis=1) == num_classes
    assert likeliest[none].mean() > 0.4
    assert likeliest[~none].mean() < 0.1
    found = model.posterior(beliefs, labels)
    assert (found.predicted == NONE_OF_CLASSES).any()
    assert found.label_score[none].mean() < found.label_score[~none].mean() - 0.2


def test_what_does_not_fit_is_refused() -> None:
    for beliefs, labels in ((np.ones((3, 2)), np.zeros(2, int)), (np.ones((0, 2)), np.zeros(0, int))):
        with pytest.raises(ValueError, match="beliefs"):
            fit_blind(beliefs, labels, 2.0)


def test_softer_beliefs_with_as_many_times_the_sharpness_are_the_same() -> None:
    beliefs, labels, _, base = drawn(600, np.ones(4), symmetric(4))
    one, other = fit_blind(beliefs, labels, base), fit_blind(softmax(np.log(beliefs) / 2, axis=1), labels, 2 * base)
    np.testing.assert_allclose(one.transition, other.transition, atol=0.02)
