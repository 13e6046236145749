"""Damaged files of a run on Ray: each is named, set aside and made again, in training too; the table is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.damage import copy_until_read, damage
from tools.faults.driver import labels
from tools.faults.run_folder import Finished, RunFolder, finish

pytestmark = pytest.mark.timeout(900)


FEW = {"train-main-*/snapshots/epoch-0004*": "flipped", "embed-*/000000.safetensors": "flipped"}
MORE = FEW | {
    "catalog-*/shards.parquet": "flipped",
    "train-main-*/trajectories/epoch-0002/000001*": "half",  # trained again from the start
    "train-main-*/trajectories/epoch-0003/000002*": "missing",
}


@pytest.mark.parametrize("damaged", [FEW, pytest.param(MORE, marks=pytest.mark.slow)], ids=["few", "more"])
def test_one_start_heals_what_it_meets(
    damaged: dict[str, str], reference: Finished, env: dict[str, str], tmp_path: Path
) -> None:
    run = RunFolder(reference.run.config, tmp_path / "run")
    copy_until_read(reference.run.path, "embed-H/", run.path)
    paths = {sorted(run.path.glob(pattern))[0]: how for pattern, how in damaged.items()}
    for path, how in paths.items():
        damage(path, how)
    ended = finish(run, env, tmp_path / "log")
    assert ended.code == 0, ended.out + ended.err
    assert labels(run.path) == labels(reference.run.path)
    for path, how in paths.items():
        assert how == "missing" or str(path) in ended.err.replace("\n", "")
        assert path.read_bytes() == (reference.run.path / path.relative_to(run.path)).read_bytes()
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_training_goes_on_before_a_damaged_checkpoint(reference: Finished, env: dict[str, str], tmp_path: Path) -> None:
    run = RunFolder(reference.run.config, tmp_path / "run")
    copy_until_read(reference.run.path, "train-H/", run.path)
    (folder,) = run.path.glob("train-main-*")
    (folder / "trained.json").unlink()
    shutil.rmtree(folder / "trajectories/epoch-0004")  # as if it had died in its last epoch
    damage(folder / "checkpoints/epoch-0004/state.pt", "flipped")
    damage(folder / "checkpoints/checkpoint_manager_snapshot.json", "half")
    ended = finish(run, env, tmp_path / "log")
    assert ended.code == 0, ended.out + ended.err
    assert labels(run.path) == labels(reference.run.path)
