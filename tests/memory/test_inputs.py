"""Probabilities, features, images and keys as users pass them: read alike, or refused with the next step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.errors import InputError
from rayclean.memory.inputs import (
    check_columns,
    read_features,
    read_images,
    read_keys,
    read_probabilities,
    read_samples,
    read_verified_samples,
    told_apart,
)
from rayclean.schema import Array
from tests.holders import ARRAYS, JUNK, Column, pandas, shuffled

QUARTERS = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])  # exact in float16 too
MATRICES: dict[str, Callable[[Array], Any]] = {
    "lists": lambda v: v.tolist(),
    "list of arrays": list,
    "list of tensors": lambda v: list(torch.from_numpy(v)),
    "float16": lambda v: v.astype(np.float16),
    "float32": lambda v: v.astype(np.float32),
    "objects": lambda v: v.astype(object),
    "torch": torch.from_numpy,
    "torch with gradient": lambda v: torch.from_numpy(v).requires_grad_(),
    "torch bfloat16": lambda v: torch.from_numpy(v).to(torch.bfloat16),
    "own index": Column,
    "arrow lists": lambda v: pa.array(v.tolist()),
    "arrow table": lambda v: pa.table({str(i): column for i, column in enumerate(v.T)}),
    "frame": shuffled,
    "nullable frame": lambda v: shuffled(v).astype("Float64"),
    "series of arrays": lambda v: pandas().Series(list(v), index=[5, 1, 9]),
}


@pytest.mark.parametrize("kind", MATRICES.values(), ids=MATRICES.keys())
def test_matrices_are_the_same_whatever_holds_them(kind: Callable[[Array], Any]) -> None:
    np.testing.assert_array_equal(read_probabilities(kind(QUARTERS)), QUARTERS)
    np.testing.assert_array_equal(read_features(kind(QUARTERS), 3), read_features(QUARTERS, 3))


@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(0.01, 1)), st.floats(-9e-4, 9e-4))
def test_rows_that_nearly_sum_to_one_are_divided_by_their_sum(values: Array, off: float) -> None:
    exact = values / values.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(read_probabilities(exact * (1 + off)), exact, rtol=1e-14)


@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_logits_of_any_size_are_read(values: Array) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pred_probs: rows of probabilities")
        found = read_probabilities(values, logits=True)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found.argmax(axis=1) == (found == found.max(axis=1, keepdims=True)).argmax(axis=1)).all()
    assert (np.take_along_axis(found, values.argmax(axis=1)[:, None], 1)[:, 0] == found.max(axis=1)).all()


@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(0.01, 1)))
def test_logarithms_of_probabilities_are_logits(values: Array) -> None:
    exact = values / values.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(read_probabilities(np.log(exact), logits=True), exact, rtol=1e-12)


def test_probabilities_said_to_be_logits_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="rows of probabilities found, but logits=True"):
        read_probabilities(QUARTERS, logits=True)


@pytest.mark.parametrize(
    ("pred_probs", "said"),
    [
        ([0.2, 0.8], r"found \(2,\); .*np.column_stack\(\[1 - p, p\]\)"),
        ([[0.2], [0.8]], r"found \(2, 1\); .*np.column_stack"),
        (np.zeros((0, 3)), r"\(N, K\) expected"),
        (np.zeros((2, 3, 4)), r"\(N, K\) expected"),
        (None, "numbers expected, found None"),
        ([[0.5, 0.5], [np.nan, 1.0]], "finite numbers expected, found nan in row 1, column 0"),
        ([[0.5, 0.5], [np.inf, 0]], "found inf in row 1, column 0"),
        ([[0.5, None], [0, 1]], "numbers expected, found None in row 0, column 1"),
        ([["a", "b"], ["c", "d"]], "numbers expected, found 'a' in row 0, column 0"),
        ([[1.0, 0.0], [0.1, 0.2], [3.0, 4.0]], "sums of 0.3 .. 7, the first in row 1; divide .* logits=True"),
        ([[0.5, 0.5], [-1.5, 3.0]], "found -1.5 in row 1; these look like logits.*logits=True"),
        ([[1.0, -1e-9], [0.5, 0.5]], "found -1e-09 in row 0; rows sum to 1.*np.clip"),
        ([[0.5, 0.5], [1.0]], r"one shape expected, found \(2,\) in row 0 and \(1,\) in row 1"),
        (np.ma.masked_equal([[0.5, 0.5], [1.0, 0.0]], 0), "masked"),
    ],
)
def test_what_is_no_probability_is_refused(pred_probs: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_probabilities(pred_probs)


def test_logits_of_one_class_are_refused_with_their_own_step() -> None:
    with pytest.raises(InputError, match=r"np.zeros_like\(z\), z"):
        read_probabilities([0.3, -2.0], logits=True)


def test_columns_in_another_order_than_the_classes_are_refused() -> None:
    frame = pandas().DataFrame(QUARTERS, columns=["dog", "cat"])
    with pytest.raises(InputError, match=r"found \['dog', 'cat'\]; pass classes="):
        check_columns(frame, ["cat", "dog"])
    check_columns(frame, ["dog", "cat"])
    check_columns(frame, ["0", "1"])
    check_columns(QUARTERS, ["cat", "dog"])


def order_of(features: Array) -> Array:
    """(N, N) all rows from the nearest to the farthest of each."""
    wide = features.astype(np.float64)
    distances: Array = np.square(wide[:, None] - wide).sum(axis=-1)
    return distances.argsort(axis=1, kind="stable")


@given(
    hnp.arrays(np.int64, (6, 3), elements=st.integers(-50, 50)), st.integers(-1000, 1000), st.integers(-(10**6), 10**6)
)
def test_size_and_place_of_features_change_no_neighbour(values: Array, exponent: int, offset: int) -> None:
    found = read_features(np.ldexp(values.astype(np.float64), exponent), 6)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1
    assert (order_of(found) == order_of(values)).all()
    assert (order_of(read_features(values + offset, 6)) == order_of(values)).all()
    assert found.any() == (values != values[0]).any()


def test_the_largest_numbers_there_are_are_features() -> None:
    found = read_features(np.array([[1.7e308, 0], [-1.7e308, 0], [1.6e308, 1]]), 3)
    assert np.isfinite(found).all()
    assert order_of(found)[0].tolist() == [0, 2, 1]
    assert read_features(np.array([[1e6, 0], [1e6 + 1, 0]], np.float32), 2).tolist() == [[-0.5, 0], [0.5, 0]]


def test_features_that_are_all_equal_are_warned_of_and_left_out() -> None:
    with pytest.warns(UserWarning, match="all rows are equal"):
        assert told_apart(read_features(np.full((3, 2), 0.1), 3)) is None
    assert told_apart(read_features([[0.1, 1], [0.1, 2]], 2)) is not None  # a constant column is none the worse


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((3, 2, 2)), r"found \(3, 2, 2\); flatten each row: features.reshape\(len\(features\), -1\)"),
        (np.zeros((3, 0)), r"d > 0 expected, found \(3, 0\)"),
        (np.zeros(3), r"\(N, d\) .* found \(3,\)"),
        (np.zeros((2, 4)), r"features: \(3,\) expected, .* found 2"),
        ([[0, 1], [2, float("nan")], [0, 0]], "found nan in row 1, column 1"),
        ([[0, 1], [2, 10**400], [0, 0]], "up to 1e308 expected"),
        ([np.zeros(2), np.zeros(3), np.zeros(2)], r"one shape expected, found \(2,\) in row 0 and \(3,\) in row 1"),
        (np.zeros((3, 2), complex), "found complex128"),
    ],
)
def test_what_is_no_feature_is_refused(features: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_features(features, 3)


PICTURES = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("held", [PICTURES, list(PICTURES), torch.from_numpy(PICTURES), tuple(PICTURES)])
def test_images_are_the_same_whatever_holds_them(held: Any) -> None:
    found = read_images(held)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PICTURES)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.from_numpy(PICTURES).permute(0, 3, 1, 2), r"found \(4, 3, 5, 5\) uint8; .*permute\(0, 2, 3, 1\)"),
        (PICTURES / 255, r"values are 0\.\d* .. 1.0: \(images \* 255\).round\(\).astype\(np.uint8\)"),
        (PICTURES.astype(int), r"images.round\(\).astype\(np.uint8\)"),
        (PICTURES - 100.0, "undo the normalisation"),
        (PICTURES[..., 0], r"np.repeat\(images\[..., None\], 3, axis=3\)"),
        (PICTURES[..., :1], r"np.repeat\(images, 3, axis=3\)"),
        (np.zeros((2, 5, 5, 4), np.uint8), r"images\[..., :3\]"),
        (PICTURES[:, :4], "crop, pad or resize"),
        (PICTURES[0], "crop, pad or resize|grey"),
        (PICTURES[:0], "at least one image"),
        ([], "crop, pad or resize"),
        ([PICTURES[0], PICTURES[0, :4, :4]], r"found \(5, 5, 3\) in row 0 and \(4, 4, 3\) in row 1"),
        (np.zeros((1, 2, 2, 3), complex), "numbers"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_images(images)


def test_the_step_that_an_error_names_is_right() -> None:
    grey = PICTURES[..., 0]
    assert read_images(np.repeat(grey[..., None], 3, axis=3)).shape == PICTURES.shape
    np.testing.assert_array_equal(read_images((PICTURES / 255 * 255).round().astype(np.uint8)), PICTURES)
    np.testing.assert_array_equal(read_images(PICTURES.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1)), PICTURES)


def test_keys_are_text_by_position() -> None:
    assert read_keys(None, 3) == ["0", "1", "2"]
    for held in ([7, 8, 7], (7, 8, 7), np.array([7, 8, 7]), torch.tensor([7, 8, 7]), pa.array(["7", "8", "7"])):
        assert read_keys(held, 3) == ["7", "8", "7"]
    assert read_keys(shuffled(np.array(["b", "a"])), 2) == ["b", "a"]
    assert read_keys(["a\0", "ключ"], 2) == ["a\0", "ключ"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["a"], r"keys: \(2,\) expected, .* found 1"),
        ("ab", "a sequence expected, found 'ab'"),
        (np.zeros((2, 2)), "single values expected"),
        ({"a": 1, "b": 2}, "a sequence expected"),
        (["a", "\ud800"], r"Unicode text expected, found '\\ud800' at position 1"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_keys(keys, 2)


def test_verified_samples_have_the_classes_and_the_size_of_the_others() -> None:
    names = ["cat", "dog"]
    given = read_samples(PICTURES, ["cat", "dog", "cat", "dog"])
    assert given.classes == names
    assert read_verified_samples((PICTURES[:1], ["dog"]), given).labels.tolist() == [1]
    with pytest.raises(InputError, match=r"verified: \(images, labels\) expected, found ndarray"):
        read_verified_samples(PICTURES, given)
    with pytest.raises(InputError, match=r"verified images: \(5, 5, 3\) each expected"):
        read_verified_samples((PICTURES[:, :4, :4], [0] * 4), given)
    with pytest.raises(InputError, match=r"verified labels: 0 .. 1 expected, found 2 at position 3"):
        read_verified_samples((PICTURES, [0, 0, 0, 2]), given)


@given(JUNK | ARRAYS)
def test_anything_is_read_or_refused(values: Any) -> None:
    readers: list[Callable[[], Any]] = [
        lambda: read_probabilities(values),
        lambda: read_probabilities(values, logits=True),
        lambda: read_features(values, 2),
        lambda: read_images(values),
        lambda: read_keys(values, 2),
    ]
    for read in readers:
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="pred_probs: rows of probabilities")
            try:
                found = read()
            except InputError:
                continue
        assert len(found)
