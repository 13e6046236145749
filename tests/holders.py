"""What users hold their samples in, and what is no sample at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayclean.schema import Array

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3) | st.just({}),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.integers(0, 3), inner),
    max_leaves=8,
)
ARRAYS: st.SearchStrategy[Array] = hnp.arrays(
    hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes() | st.just(np.dtype("i4,f4")),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


class Column:
    """As a Series: values in an order, with an index that says another."""

    def __init__(self, values: Array) -> None:
        self.values, self.index = values, np.arange(len(values))[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: int) -> Any:
        raise KeyError(label)


def pandas() -> Any:
    """The library, which rayclean does not need."""
    return pytest.importorskip("pandas")


def shuffled(values: Array) -> Any:
    """A Series, or a DataFrame, whose index is no position."""
    index = (np.arange(len(values)) * 7)[::-1]
    return (pandas().Series if values.ndim == 1 else pandas().DataFrame)(values, index=index)
