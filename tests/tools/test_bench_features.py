"""The benchmark of runs on features: what it makes is what it says, and it reads what a run has recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools.bench.features import Made, main, make


def test_made_features_are_the_same_whatever_is_asked_for_first() -> None:
    one, other = Made(3, 40, seed=1), Made(3, 40, seed=1)
    other.block(0, 10)
    for a, b in zip(one.block(1, 500), other.block(1, 500), strict=True):
        np.testing.assert_array_equal(a, b)
    features, labels, truth = one.block(0, 2000)
    assert features.shape == (2000, 40)
    assert 0.15 < (labels != truth).mean() < 0.25
    assert np.linalg.matrix_rank(features.astype(np.float64), tol=1) <= 24


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    make(tmp_path, Made(3, 30, seed=0), 50)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    make(tmp_path, Made(3, 30, seed=0), 50)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_sizes_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(tmp_path), "--small", "300", "--large", "600", "--classes", "3", "--dim", "30"]
    main(options)
    printed = capsys.readouterr().out
    for stage in ("catalog", "train", "neighbors", "interpolate", "vote", "merge"):
        assert f"| {stage} |" in printed
    assert "recall of neighbours: 1.000 of 300, 1.000 of 600" in printed
    assert json.loads((tmp_path / "figures-300-3-30.json").read_text())["rows"] == 300
    main(options)
    assert capsys.readouterr().out.splitlines()[:8] == printed.splitlines()[:8]
