from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.scores.vote import neighbor_shares, neighbor_vote


@given(st.integers(0, 6), st.integers(0, 5), st.data())
def test_vote_is_the_share_of_valid_neighbours_of_the_label(num_rows: int, num: int, data: st.DataObject) -> None:
    shape = (num_rows, num)
    neighbor_labels = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 2)))
    valid = data.draw(hnp.arrays(np.bool_, shape))
    labels = data.draw(hnp.arrays(np.int32, num_rows, elements=st.integers(0, 2)))
    votes = neighbor_vote(neighbor_labels, valid, labels)
    assert votes.dtype == np.float32
    for i in range(num_rows):
        voters = [int(neighbor_labels[i, j]) for j in range(num) if valid[i, j]]
        expected = np.float32(voters.count(int(labels[i])) / len(voters)) if voters else np.float32(np.nan)
        np.testing.assert_equal(votes[i], expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 2\), \(2,\)"):
        neighbor_vote(np.zeros((3, 2), dtype=np.int32), np.ones((3, 2), dtype=np.bool_), np.zeros(2, dtype=np.int32))


@given(st.integers(0, 6), st.integers(0, 5), st.integers(1, 4), st.floats(0.001, 1), st.data())
def test_shares_are_those_of_the_classes_among_neighbours(
    num_rows: int, num: int, num_classes: int, floor: float, data: st.DataObject
) -> None:
    labels = data.draw(hnp.arrays(np.int64, (num_rows, num), elements=st.integers(-1, num_classes - 1)))
    shares = neighbor_shares(labels, num_classes, floor)
    assert shares.shape == (num_rows, num_classes)
    for row, found in zip(labels.tolist(), shares, strict=True):
        there = [label for label in row if label >= 0]
        counted = np.array([there.count(k) / max(len(there), 1) + floor for k in range(num_classes)])
        np.testing.assert_allclose(found, counted / counted.sum(), rtol=1e-12)
        assert there or (found == found[0]).all()
