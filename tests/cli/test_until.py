"""`rayclean run --until STAGE`: what it says of the samples, and the exit code that the whole run would have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.cli import commands
from rayclean.config import Config
from tests.conftest import LONELY
from tests.helpers import sample, write_tar

Until = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def until(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Until:
    """Does the tiny run up to a stage; returns the exit code and what it prints, or what it says on stderr at last."""
    tiny_config(tmp_path)

    def run(stage: str, *overrides: str) -> tuple[int, list[str]]:
        fixed = [f"{tmp_path}/given.yaml", "run.executor=inline", *overrides]
        monkeypatch.setattr("sys.argv", ["rayclean", "run", *fixed, "--until", stage])
        code = commands.call()
        said = capsys.readouterr()
        return code, said.out.splitlines() or said.err.strip().splitlines()[-1:]

    return run


def test_counts_and_the_exit_code_are_those_of_the_whole_run(until: Until, tmp_path: Path) -> None:
    code, lines = until("catalog")
    assert code == 3  # one of 53 samples is quarantined
    assert lines[0] == "done until catalog; the same command without --until goes on"
    assert lines[1].startswith("52 rows of 4 shards, 5 duplicates")
    assert lines[2] == f"6 classes of 1 ('{LONELY}') to 18 ('0') rows"
    assert lines[3:] == ["quarantined: 1 of 53 samples (missing_label 1)"]
    assert not list(tmp_path.glob("train-*"))


def test_bad_samples_that_are_allowed_are_counted_and_no_more(until: Until) -> None:
    code, lines = until("trajectory", "data.max_bad_share=0.1", "train.epochs=1", "train.from=")
    assert code == 0
    assert "quarantined: 1 of 53 samples (missing_label 1)" in lines


def test_classes_without_rows_are_told(until: Until) -> None:
    _, lines = until("catalog", "data.classes=[a, b, c, d, e, f, '[red]g', h]")
    assert lines[2].endswith("; 2 have none")
    assert "of 0 ('[red]g') to" in lines[2]


def test_shards_without_a_row_are_an_error_already_here(until: Until, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "shard.tar", sample("a", label="cat"))
    code, lines = until("catalog", f"data.shards={shard}")
    assert code == 2
    assert "no usable sample" in lines[-1]


def test_the_last_stage_is_the_whole_run(until: Until) -> None:
    code, lines = until("merge")
    assert code == 3
    assert "flagged as wrong labels" in lines[1]


def test_a_stage_that_is_none_names_those_that_are(until: Until) -> None:
    code, lines = until("catalogue")
    assert code == 2
    assert "--until catalogue: no such stage; stages: catalog, train" in lines[-1]
