"""The graph of a very large run is handed out whole, each unit once."""

from __future__ import annotations

import re

import pytest

from tools.bench_schedule import CHAINS, main


def test_all_units_are_handed_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--jobs", str(3 * CHAINS), "--units", "7"])
    assert re.match(rf"{3 * CHAINS * 7} units in {3 * CHAINS} jobs: [\d,]+ units/s;", capsys.readouterr().out)
