"""Issues made on purpose: what is made is what is said, and the table counts it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rayclean.merge.kinds import KIND_NAMES
from tools.cells.issue_kinds import NOTHING, main, make, table


def test_every_kind_is_made() -> None:
    made, truth = make(0.1, 20, 0), load_digits().target
    kinds, counts = np.unique(made.kinds, return_counts=True)
    assert set(kinds) == {NOTHING, *KIND_NAMES}
    found = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    assert found["wrong_label"] == round(0.1 * len(truth))
    assert found["ambiguous"] == found["none_of_the_classes"] == 20
    assert found["duplicate_with_another_label"] == 40
    first = made.images[: len(truth)]
    assert (made.labels[: len(truth)] == truth).sum() == len(truth) - found["wrong_label"]
    for image, label in zip(made.images[-20:], made.labels[-20:], strict=True):
        same = np.flatnonzero((first == image).all(axis=(1, 2, 3)))
        assert len(same)
        assert (made.labels[same] != label).all()


def test_the_table_counts() -> None:
    lines = table(["nothing", "ambiguous", "ambiguous"], [None, "ambiguous", "wrong_label"])
    assert lines[2] == "| nothing | 1 | 0 | 0 | 0 | 0 | 1 |"
    assert lines[4] == "| ambiguous | 0 | 1 | 1 | 0 | 0 | 2 |"


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--added", "5", "--epochs", "1"])
    assert "| duplicate_with_another_label | 0 | 0 | 0 | 0 | 10 | 10 |" in capsys.readouterr().out
