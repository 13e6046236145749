"""The benchmark of the influence solvers runs, and its two ways agree."""

from __future__ import annotations

import re

import pytest

from tools.bench.influence import main


def test_the_ways_of_solving_agree(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "600", "--features", "12", "--classes", "3", "--hessian-rows", "400", "--probes", "500"])
    printed = capsys.readouterr().out
    assert "p = 39" in printed
    differences = [float(value) for value in re.findall(r"largest difference (\S+) of", printed)]
    probes, inverse, osd = differences
    assert probes < 0.2
    assert inverse < 1e-6
    assert osd < 1e-6
