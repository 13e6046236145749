"""Undirected pairs: each neighbourhood once, whoever lists whom; sorting for locality loses nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.schema import Array
from rayclean.scores.pairs import LEFT_LISTS_RIGHT, RIGHT_LISTS_LEFT, ordered_for_locality, undirected_pairs


def random_lists(num_rows: int, num: int, seed: int) -> tuple[Array, Array]:
    """Rows with gaps between them, and lists of some of them, -1 where there are fewer."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(3 * num_rows)[:num_rows]
    lists = np.full((num_rows, num), -1)
    for i in range(num_rows):
        others = rng.permutation(np.delete(rows, i))[: rng.integers(0, num + 1)]
        lists[i, : len(others)] = others
    return rows, lists


lists = st.builds(random_lists, st.integers(1, 12), st.integers(1, 5), st.integers(0, 1000))


@settings(deadline=None)
@given(lists)
def test_the_pairs_are_the_lists(found: tuple[Array, Array]) -> None:
    rows, neighbors = found
    pairs = undirected_pairs(rows, neighbors)
    listed = {(int(i), int(j)) for i, row in zip(rows, neighbors, strict=True) for j in row if j >= 0}
    assert (pairs.left < pairs.right).all()
    each = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert each == sorted(set(each)) == sorted({(min(pair), max(pair)) for pair in listed})
    for (left, right), bits in zip(each, pairs.listed.tolist(), strict=True):
        assert bool(bits & LEFT_LISTS_RIGHT) == ((left, right) in listed)
        assert bool(bits & RIGHT_LISTS_LEFT) == ((right, left) in listed)
    assert int(np.bitwise_count(pairs.listed).sum()) == len(listed)


def test_rows_without_neighbours_make_no_pair() -> None:
    pairs = undirected_pairs(np.array([4, 7]), np.full((2, 3), -1))
    assert [len(column) for column in pairs] == [0, 0, 0]


@settings(deadline=None)
@given(lists, st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_the_order_for_locality_only_sorts(
    found: tuple[Array, Array], num_cells: int, num_labels: int, seed: int
) -> None:
    pairs = undirected_pairs(*found)
    rng = np.random.default_rng(seed)
    cells, labels = rng.integers(0, num_cells, 40), rng.integers(0, num_labels, 40)
    args = labels[pairs.left], cells[pairs.left], cells[pairs.right]
    ordered = ordered_for_locality(pairs, *args)
    assert set(zip(*(column.tolist() for column in ordered), strict=True)) == set(
        zip(*(column.tolist() for column in pairs), strict=True)
    )
    ends = np.sort(np.stack([cells[ordered.left], cells[ordered.right]]), axis=0)
    keys = list(zip(labels[ordered.left].tolist(), *ends.tolist(), ordered.left.tolist(), strict=True))
    assert keys == sorted(keys)
    # The order is one of the pairs alone, not of how they came.
    shuffled = rng.permutation(len(pairs.left))
    again = ordered_for_locality(type(pairs)(*(column[shuffled] for column in pairs)), *(a[shuffled] for a in args))
    assert all((one == other).all() for one, other in zip(ordered, again, strict=True))
