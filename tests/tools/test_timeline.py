"""The timeline of a run: what is read from its files, and how turns are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rayclean.config import Config
from rayclean.run.run import Run
from tools.bench.timeline import ends, main, turns


def test_turns_are_counted() -> None:
    assert turns([1, 2], [3, 4]) == 1
    assert turns([1, 3, 5], [2, 4, 6]) == 5
    assert turns([1, 9], [5]) == 2


def test_a_run_is_drawn(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = finish(tiny_config(tmp_path / "run", "scores=[iofm, osm]"))
    found = ends(Path(run.config.run.dir))
    assert len(found["paths"]) == len(run.paths(run.walks[0]).units())
    assert min(time for times in found.values() for time in times) == 0
    main([run.config.run.dir, str(tmp_path / "timeline.png")])
    assert Image.open(tmp_path / "timeline.png").size[0] > 800
    assert "paths and influence changed turns" in capsys.readouterr().out


def test_a_run_without_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no units are there"):
        ends(tmp_path)
