"""Labels as users pass them: whatever holds them, they are the same labels, or an error says what is wrong."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.errors import InputError
from rayclean.memory.labels import read_classes, read_labels, read_verified_labels
from rayclean.schema import Array
from tests.holders import ARRAYS, JUNK, Column, pandas, shuffled

NAMES = ["ant", "bee", "cat", "dog"]


NUMBERS: dict[str, Callable[[Array], Any]] = {
    "list": lambda v: v.tolist(),
    "tuple": lambda v: tuple(v.tolist()),
    "float list": lambda v: v.astype(float).tolist(),
    "scalars": list,
    "objects": lambda v: v.astype(object),
    "column": lambda v: v[:, None],
    "torch": torch.from_numpy,
    "torch float": lambda v: torch.from_numpy(v).float(),
    "torch bfloat16": lambda v: torch.from_numpy(v).to(torch.bfloat16),
    "torch scalars": lambda v: list(torch.from_numpy(v)),
    "arrow": pa.array,
    "arrow chunks": lambda v: pa.chunked_array([v[:1], v[1:]], pa.int64()),
    "own index": Column,
    "series": shuffled,
    "filtered series": lambda v: pandas().Series(np.repeat(v, 2))[::2],
    "nullable": lambda v: shuffled(v).astype("Int64"),
    "categories": lambda v: shuffled(v).astype("category"),
    "arrow series": lambda v: shuffled(v).astype("int64[pyarrow]"),
    "frame": lambda v: shuffled(v).to_frame(),
    **{name: operator.methodcaller("astype", name) for name in ("i1", "u1", ">i2", "u4", "u8", "f2", "f4", "f8", "g")},
}
TEXTS: dict[str, Callable[[Array], Any]] = {
    "list": lambda v: v.tolist(),
    "text array": lambda v: v,
    "objects": lambda v: v.astype(object),
    "new text": lambda v: v.astype(np.dtypes.StringDType()),
    "arrow": lambda v: pa.array(v.tolist()),
    "arrow dictionary": lambda v: pa.array(v.tolist()).dictionary_encode(),
    "own index": Column,
    "series": shuffled,
    "categories": lambda v: shuffled(v).astype("category"),
    "string series": lambda v: shuffled(v).astype("string"),
}
whole = hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 3))


@pytest.mark.parametrize("kind", NUMBERS.values(), ids=NUMBERS.keys())
@settings(max_examples=20)
@given(values=whole)
def test_numbers_are_the_same_whatever_holds_them(kind: Callable[[Array], Any], values: Array) -> None:
    found = read_labels(kind(values), len(values), 4)
    assert found.values.dtype == np.int64
    assert found.values.tolist() == values.tolist()
    assert found.classes == ["0", "1", "2", "3"]
    assert read_labels(kind(values), len(values), classes=NAMES).classes == NAMES


@pytest.mark.parametrize("kind", TEXTS.values(), ids=TEXTS.keys())
@settings(max_examples=20)
@given(values=whole)
def test_names_are_positions_among_the_classes(kind: Callable[[Array], Any], values: Array) -> None:
    text = np.array(NAMES)[values]
    found = read_labels(kind(text), len(values), 4, NAMES[::-1])
    assert [found.classes[label] for label in found.values] == text.tolist()
    assert found.classes == NAMES[::-1]
    alone = read_labels(kind(text), len(values))
    assert alone.classes == sorted(set(text.tolist()))
    assert [alone.classes[label] for label in alone.values] == text.tolist()


def test_bool_is_two_classes() -> None:
    assert read_labels([True, False, True], 3).values.tolist() == [1, 0, 1]
    assert read_labels(np.array([True, False]), 2, classes=["no", "yes"]).classes == ["no", "yes"]


def test_as_many_classes_as_said_or_as_the_largest_label_needs() -> None:
    assert read_labels([0, 2], 2).classes == ["0", "1", "2"]
    assert len(read_labels([0, 2], 2, 5).classes) == 5
    assert read_labels(["b", "a"], 2, 2).values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "at least one expected, found none"),
        ([0, 1], r"\(3,\) expected, .* found 2"),
        ([0, -1, 0], "0 .. 3 expected, found -1 at position 1"),
        ([0, 1, 4], "0 .. 3 expected, found 4 at position 2"),
        (np.array([0, 2**64 - 1, 0], np.uint64), "found 18446744073709551615 at position 1"),
        ([0, 1.5, 2], "whole numbers expected, found 1.5 at position 1"),
        ([0, float("nan"), 1], "found nan at position 1"),
        ([0, float("inf"), 1], "found inf at position 1"),
        ([0, 1e300, 1], r"0 .. 3 expected, found 1e\+300"),
        ([0, 10**400, 1], "0 .. 3 expected, found 1000"),
        ([0, None, 1], "found None at position 1"),
        (["ant", None, "bee"], "names expected, found None at position 1"),
        (["ant", 1, "bee"], "names expected, found 1 at position 1"),
        (pa.array([0, None, 1]), "found nan at position 1"),
        (np.ma.masked_equal([0, 1, 2], 1), "masked"),
        (np.eye(4)[[0, 1, 2]], r"found \(3, 4\); of one-hot rows take .argmax"),
        (np.zeros((3, 1, 1)), r"\(N,\) expected"),
        ("cat", r"\(N,\) expected"),
        (None, r"\(N,\) expected"),
        ({0: 1}, r"\(N,\) expected"),
        ([[0], [1, 2], [3]], "lists of equal lengths expected"),
        (np.zeros(3, "M8[s]"), "found datetime64"),
        (np.array([0, 1j, 0]), "found complex128"),
        (np.array([b"ant", b"bee", b"cat"]), "whole numbers or names expected"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_labels(labels, 3, 4)


@pytest.mark.parametrize(
    ("labels", "num_classes", "classes", "said"),
    [
        (["ant", "bee"], 3, None, "3 distinct names expected, found 2: .*'ant', 'bee'.*classes="),
        (["ant", "owl"], None, NAMES, r"one of .* expected, found 'owl' at position 1"),
        (["ant", "bee"], 3, NAMES, "classes: 3 names expected, .* found 4"),
        ([str(i) for i in range(11)], 11, None, "numbers as text, which sort as .*'0', '1', '10', '2'"),
        ([0, 4], None, NAMES, "0 .. 3 expected, found 4"),
        ([0, 1], 0, None, "at least one class expected, found 0"),
        ([0, 1], None, [], "classes: names expected, found none"),
        ([0, 1], None, "ab", "classes: a sequence expected"),
        ([0, 1], None, ["a", "b", "a"], "distinct names expected, found 'a' twice"),
        ([0, 1], None, [0, 1], "names as text expected, found 0 at position 0"),
    ],
)
def test_classes_that_do_not_fit_are_refused(labels: Any, num_classes: int | None, classes: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_labels(labels, len(labels), num_classes, classes)


@given(JUNK | ARRAYS, st.integers(1, 4), st.none() | st.integers(1, 3), st.none() | JUNK)
def test_anything_is_read_or_refused(labels: Any, num_rows: int, num_classes: int | None, classes: Any) -> None:
    try:
        found = read_labels(labels, num_rows, num_classes, classes)
    except InputError:
        return
    assert found.values.shape == (num_rows,)
    assert ((found.values >= 0) & (found.values < len(found.classes))).all()
    assert num_classes in (None, len(found.classes))


VERIFIED: dict[str, Any] = {
    "numbers": np.array([-1, 3, -2, 0]),
    "small": np.array([-1, 3, -2, 0], np.int8),
    "floats": [float("nan"), 3.0, -2.0, 0.0],
    "objects": [None, 3, "drop", "ant"],
    "text": [None, "dog", "drop", "ant"],
    "mapping": {1: 3, 2: "drop", 3: "ant"},
    "mapping of numbers": {np.int64(3): np.int32(0), 2: -2, 1: 3.0, 0: None},
    "torch": torch.tensor([-1, 3, -2, 0]),
}


@pytest.mark.parametrize("verified", VERIFIED.values(), ids=VERIFIED.keys())
def test_verified_labels_are_the_same_whatever_holds_them(verified: Any) -> None:
    found = read_verified_labels(verified, 4, NAMES)
    assert found.dtype == np.int64
    assert found.tolist() == [-1, 3, -2, 0]


def test_verified_labels_of_a_series_are_by_position() -> None:
    assert read_verified_labels(shuffled(np.array([2, -1, 0])), 3, NAMES).tolist() == [2, -1, 0]
    text = pandas().Series(["bee", None, "drop"], index=[9, 2, 0])
    assert read_verified_labels(text, 3, NAMES).tolist() == [1, -1, -2]


def test_nothing_verified_and_a_class_that_is_called_drop() -> None:
    assert read_verified_labels(None, 2, NAMES).tolist() == [-1, -1]
    assert read_verified_labels({}, 2, NAMES).tolist() == [-1, -1]
    assert read_verified_labels({1: "drop"}, 2, ["keep", "drop"]).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        ([0, 1], r"\(3,\) expected, .* found 2"),
        ([0, 1, 4], "position 2: .* found 4"),
        ([0, 1, -3], "position 2: .* found -3"),
        ([0, 1, 0.5], "position 2: .* found 0.5"),
        ({3: 0}, r"positions 0 .. 2 expected as keys, found 3"),
        ({-1: 0}, "found -1"),
        ({"1": 0}, "found '1'"),
        ({1: "owl"}, "position 1: .* found 'owl'"),
        ({1: [0]}, "position 1: .* found .0."),
    ],
)
def test_verified_labels_that_do_not_fit_are_refused(verified: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_verified_labels(verified, 3, NAMES)


@given(JUNK | ARRAYS | st.dictionaries(st.integers(-1, 4) | st.text(max_size=1), JUNK), st.integers(0, 4))
def test_anything_verified_is_read_or_refused(verified: Any, num_rows: int) -> None:
    try:
        found = read_verified_labels(verified, num_rows, NAMES)
    except InputError:
        return
    assert found.shape == (num_rows,)
    assert ((found >= -2) & (found < len(NAMES))).all()


def test_names_of_classes_are_read_from_any_sequence() -> None:
    for held in (NAMES, tuple(NAMES), np.array(NAMES), pa.array(NAMES), shuffled(np.array(NAMES))):
        assert read_classes(held) == NAMES
