"""The report's arithmetic against plain reckoning: shares, worst rows, percentiles, agreement, histograms."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import rankdata, spearmanr

from rayclean.report.page_numbers import (
    BINS,
    DOUBTFUL,
    NO_TRUTH,
    RIGHT,
    WRONG,
    Worst,
    agreement,
    fair_shares,
    percentiles,
    shown_rows,
    spread,
)
from rayclean.schema import Array

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=12).map(np.array)


@given(st.integers(0, 300), COUNTS)
def test_shares_are_whole_and_fair(total: int, counts: Array) -> None:
    shares = fair_shares(total, counts)
    assert shares.sum() == min(total, counts.sum())
    assert (shares <= counts).all()
    assert (shares >= 0).all()
    unsatisfied = shares[shares < counts]
    if len(unsatisfied):  # nobody has two more than one who could take more
        assert shares.max() <= unsatisfied.min() + 1


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8))
def test_flagged_rows_come_first(top: int, counts: list[tuple[int, int]]) -> None:
    issues, others = np.array(counts).T
    shown = shown_rows(top, issues + others, issues)
    assert (shown <= issues + others).all()
    assert shown.sum() == min(top, issues.sum() + np.minimum(others, DOUBTFUL).sum())
    if top < issues.sum():
        assert (shown <= issues).all()
    else:
        assert (shown >= issues).all()


@given(st.data(), st.integers(1, 5))
def test_the_worst_are_those_of_a_plain_sort_whatever_the_pieces(data: st.DataObject, num_classes: int) -> None:
    size = data.draw(st.integers(0, 60))
    labels = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size)), np.int64)
    scores = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]), min_size=size, max_size=size)))
    shares = np.array(data.draw(st.lists(st.integers(0, 6), min_size=num_classes, max_size=num_classes)))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    worst = Worst(shares)
    for start, stop in itertools.pairwise([0, *cuts, size]):
        worst.add(np.arange(start, stop), labels[start:stop], scores[start:stop].astype(np.float64))
    expected = [
        row
        for label in range(num_classes)
        for row in sorted(np.flatnonzero(labels == label), key=lambda row: (scores[row], row))[: shares[label]]
    ]
    assert worst.rows.tolist() == expected


@given(st.lists(st.one_of(st.just(math.nan), st.integers(-5, 5).map(float)), min_size=1, max_size=40).map(np.array))
def test_percentiles_count_half_of_the_equal_ones(column: Array) -> None:
    found = percentiles(column, column)
    defined = ~np.isnan(column)
    expected = 100 * (rankdata(column[defined]) - 0.5) / max(defined.sum(), 1)
    np.testing.assert_allclose(found[defined], expected)
    assert np.isnan(found[~defined]).all()


def test_agreement_is_spearmans_over_the_rows_that_both_have() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=200)
    columns = [first, first**3, -first, rng.normal(size=200), np.ones(200), np.full(200, np.nan)]
    columns[3][::3] = np.nan
    found = agreement(columns)
    np.testing.assert_allclose(np.diag(found)[:4], 1)
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(-1)
    both = ~np.isnan(columns[3])
    assert found[0, 3] == found[3, 0] == pytest.approx(spearmanr(first[both], columns[3][both]).statistic)
    assert np.isnan(found[4:]).all()  # a constant score and one that no row has say nothing
    assert np.isnan(found[:, 4:]).all()
    assert agreement([]).shape == (0, 0)


def two_groups(size: int = 4000, share: float = 0.25) -> tuple[Array, dict[str, Array]]:
    """Log-odds around -2 where wrong and 2 where right, and the rows by truth."""
    rng = np.random.default_rng(1)
    wrong = np.arange(size) < share * size
    return rng.normal(np.where(wrong, -2, 2)), {RIGHT: ~wrong, WRONG: wrong, NO_TRUTH: np.zeros(size, bool)}


@pytest.mark.parametrize("name", ["aum", "iofm", "loss"])
def test_a_histogram_counts_every_defined_row_and_its_components_find_the_groups(name: str) -> None:
    odds, groups = two_groups()
    column = {"aum": odds, "iofm": 1 / (1 + np.exp(-odds)), "loss": -np.log1p(np.exp(-odds))}[name]
    column[::10] = np.nan
    found = spread(name, column, groups)
    defined = ~np.isnan(column)
    assert found.undefined == (~defined).sum()
    assert set(found.counts) == {RIGHT, WRONG}
    for group, counts in found.counts.items():
        assert counts.sum() == (groups[group] & defined).sum()
    assert found.is_exp == (name == "loss")
    assert found.clean is not None
    assert found.noisy is not None
    assert found.clean.sum() + found.noisy.sum() == pytest.approx(defined.sum())
    assert found.noisy.sum() == pytest.approx(0.25 * defined.sum(), rel=0.15)
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    assert np.average(middles, weights=found.noisy) < np.average(middles, weights=found.clean)


def test_whole_numbers_have_a_bin_each() -> None:
    column = np.repeat([-3.0, -1.0, 0.0], [2, 3, 50])
    found = spread("wrong_events", column, {NO_TRUTH: np.ones(55, bool)})
    assert found.edges.tolist() == [-3.5, -2.5, -1.5, -0.5, 0.5]
    assert found.counts[NO_TRUTH].tolist() == [2, 0, 3, 50]


def test_far_values_are_in_the_outermost_bins() -> None:
    column = np.concatenate([np.random.default_rng(0).normal(size=1000), [-1e6, 1e6]])
    found = spread("margin", column, {NO_TRUTH: np.ones(len(column), bool)})
    assert len(found.edges) == BINS + 1
    assert found.counts[NO_TRUTH].sum() == len(column)
    assert -10 < found.edges[0] < found.edges[-1] < 10


@pytest.mark.parametrize("column", [np.full(30, np.nan), np.zeros(30), np.array([0.5]), np.empty(0)])
@pytest.mark.parametrize("name", ["aum", "vote", "odd"])
def test_what_cannot_be_fitted_has_no_components(name: str, column: Array) -> None:
    found = spread(name, column, {NO_TRUTH: np.ones(len(column), bool)})
    assert found.clean is None
    assert found.noisy is None
    assert found.mixture.reason
    assert sum(counts.sum() for counts in found.counts.values()) == (~np.isnan(column)).sum()
