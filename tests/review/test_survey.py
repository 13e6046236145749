"""A sample to verify: its strata, what is drawn of each, and that the noise rate told by it is right."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.errors import InputError
from rayclean.review.estimate import Z, estimate, stratified
from rayclean.review.survey import Survey, allocate, draw_survey, strata_of
from rayclean.schema import Array
from tests.review.tables import NAMES, table

counts_of_strata = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40)), min_size=1)


def ids(rows: Array) -> Array:
    return rows.astype(np.uint64) * np.uint64(977)


def survey_of(rows: pa.Table, asked: int, seed: int = 0) -> Survey:
    return draw_survey(ds.dataset(rows), asked, "merge-1", NAMES, seed, ids)


def scores_of(seed: int, num: int) -> list[float]:
    found: list[float] = np.random.default_rng(seed).beta(0.4, 0.3, num).tolist()
    return found


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any), st.integers(1, 10))
def test_strata_are_ranges_of_bins_of_about_equal_size(counts: list[int], most: int) -> None:
    rows = np.array(counts)
    found = strata_of(rows, most)
    assert (np.diff(found) >= 0).all()
    sizes = np.bincount(found, weights=rows)
    assert len(sizes) <= most
    assert (sizes > 0).all()
    assert sizes.sum() == rows.sum()
    assert sizes.max() <= rows.sum() / most + rows.max()


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.05, 0.3, 0.5])), min_size=1, max_size=3), st.data())
def test_the_allocation_has_the_least_variance(strata: list[tuple[int, float]], data: st.DataObject) -> None:
    rows, means = np.array([each[0] for each in strata]), np.array([each[1] for each in strata])
    least = np.minimum(rows, 2)
    total = data.draw(st.integers(int(least.sum()), int(rows.sum())))

    def variance(sizes: tuple[int, ...]) -> float:
        return float((rows**2 * means * (1 - means) / np.array(sizes)).sum())

    ranges = (range(low, high + 1) for low, high in zip(least.tolist(), rows.tolist(), strict=True))
    best = min(variance(sizes) for sizes in itertools.product(*ranges) if sum(sizes) == total)
    found = allocate(rows, means, total)
    assert found.sum() == total
    assert ((least <= found) & (found <= rows)).all()
    assert variance(tuple(found.tolist())) == pytest.approx(best)


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(2, 90), st.integers(1, 80))
def test_the_rows_are_those_of_a_plain_draw(seed: int, asked: int, num: int) -> None:
    scores = scores_of(seed, num)
    found = survey_of(table(scores), asked, seed)
    assert len(found.rows) == len({each.row for each in found.rows})
    assert len(found.rows) == min(max(asked, 2), num)
    assert sum(each.rows for each in found.strata) == num == found.num_rows
    assert Counter(each.stratum for each in found.rows) == {i: each.drawn for i, each in enumerate(found.strata)}
    weights = [found.strata[each.stratum].weight for each in found.rows]
    assert sum(weights) == pytest.approx(num), "the rows stand for the whole table"
    ends = [(each.low, each.high) for each in found.strata]
    assert all(low[1] < high[0] for low, high in itertools.pairwise(ends))
    for each in found.rows:
        assert (each.key, each.shard, each.given) == (f"k{each.row}", f"{'ab'[each.row % 2]}.tar", NAMES[each.row % 3])
        low, high = ends[each.stratum]
        assert low <= np.float32(scores[each.row]) <= high


def test_the_parts_of_the_table_do_not_matter_and_the_seed_does() -> None:
    rows = table(scores_of(1, 90))
    apart = ds.dataset([ds.dataset(rows.slice(0, 41)), ds.dataset(rows.slice(41))])
    assert draw_survey(apart, 30, "merge-1", NAMES, 0, ids) == survey_of(rows, 30)
    assert survey_of(rows, 30, seed=1).rows != survey_of(rows, 30).rows


def test_every_row_of_a_stratum_is_drawn_as_often_and_the_order_says_nothing() -> None:
    rows = table(scores_of(2, 60))
    counts: Counter[int] = Counter()
    places: dict[int, list[int]] = {}
    for seed in range(400):
        found = survey_of(rows, 30, seed)
        counts.update(each.row for each in found.rows)
        for place, each in enumerate(found.rows):
            places.setdefault(each.stratum, []).append(place)
    for row in range(60):
        (stratum,) = (each for each in found.strata if each.low <= rows["label_score"][row].as_py() <= each.high)
        assert counts[row] / 400 == pytest.approx(1 / stratum.weight, abs=0.1)
    assert all(np.mean(each) == pytest.approx(14.5, abs=1) for each in places.values())


def test_what_is_verified_already_is_known_and_not_drawn() -> None:
    verified = [0, 2, -1, *[None] * 27]
    found = survey_of(table(scores_of(3, 30), verified=verified), 20)
    assert (found.known, found.known_wrong) == (3, 2)
    assert min(each.row for each in found.rows) > 2
    assert found.num_rows == 30
    with pytest.raises(InputError, match="nothing is left to draw"):
        survey_of(table([0.5], verified=[1]), 2)


@given(counts_of_strata, st.integers(0, 9), st.integers(0, 9))
def test_the_estimate_is_the_plain_one(strata: list[tuple[int, int, int]], known: int, wrong: int) -> None:
    rows = [each[0] for each in strata]
    verified = [min(each) for each in ((high, few) for high, few, _ in strata)]
    faults = [min(few, bad) for few, (_, _, bad) in zip(verified, strata, strict=True)]
    found = stratified(np.array(rows), np.array(verified), np.array(faults), known, min(wrong, known))
    if 0 in verified:
        assert found is None
        return
    assert found is not None
    total = sum(rows) + known
    rate = (min(wrong, known) + sum(N * m / n for N, n, m in zip(rows, verified, faults, strict=True))) / total
    variance = 0.0
    for N, n, m in zip(rows, verified, faults, strict=True):
        share = (m + 0.5) / (n + 1)
        variance += (N / total) ** 2 * (1 - n / N) * share * (1 - share) / n
    assert found.rate == pytest.approx(rate)
    assert found.low == pytest.approx(max(rate - Z * variance**0.5, 0))
    assert found.high == pytest.approx(min(rate + Z * variance**0.5, 1))
    if rows == verified:
        assert found.low == pytest.approx(found.high), "of a whole table nothing is uncertain"


@pytest.mark.parametrize("true", ["as the scores say", "more than they say", "nearly clean"])
def test_the_interval_has_the_rate_in_95_of_100_samples(true: str) -> None:
    rng = np.random.default_rng(5)
    scores = rng.beta(6, 1, 3000) if true == "nearly clean" else rng.beta(0.6, 0.3, 3000)
    chance = {"as the scores say": 1 - scores, "more than they say": (1 - scores) ** 0.5}.get(true, np.full(3000, 0.02))
    wrong, rows = rng.random(3000) < chance, table(scores.tolist())
    inside, rates = [], []
    for seed in range(300):
        survey = survey_of(rows, 100, seed)
        found = estimate(survey, {each.sample: bool(wrong[each.row]) for each in survey.rows})
        assert found is not None
        inside.append(found.low <= wrong.mean() <= found.high)
        rates.append(found.rate)
    assert np.mean(inside) >= 0.93
    assert np.mean(rates) == pytest.approx(wrong.mean(), abs=3 * np.std(rates) / 300**0.5)


def test_an_estimate_waits_for_a_row_of_each_stratum() -> None:
    survey = survey_of(table(scores_of(4, 60)), 30)
    said = {each.sample: True for each in survey.rows if each.stratum}
    assert len(survey.strata) > 1
    assert estimate(survey, said) is None
    assert estimate(survey, {}) is None
    first = next(each for each in survey.rows if not each.stratum)
    found = estimate(survey, {**said, first.sample: False})
    assert found is not None
    assert found.rate == pytest.approx(1 - survey.strata[0].rows / 60)
    more = estimate(replace(survey, known=40, known_wrong=0), {**said, first.sample: False})
    assert more is not None
    assert more.rate == pytest.approx(found.rate * 0.6)
