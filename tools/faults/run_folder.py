"""Runs, and copies of them that lack the stages from one on: what a stopped run leaves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rayclean.config import Config, load_config
from rayclean.run.grow import STAGES
from tools.faults.driver import BIN, Ended, started

NUM_GOOD, NUM_BAD, NUM_SHARDS = 240, 2, 4
RUN_TIMEOUT_S = 400  # a run takes 30-60 s on two idle cores
# What a stage leaves beside its own folders.
BESIDE = {"merge": ("labels", "tables")}

# Files of which some, but not all, are there in the middle of a stage.
PARTS = {
    "catalog": "catalog-*/rows/*.parquet",
    "train": "train-main-*/trajectories/epoch-*/*.parquet",
    "embed": "embed-*/*.safetensors",
    "neighbors": "neighbors-*/*/*.safetensors",
    "pairs": "pairs-*/*.safetensors",
    "paths": "paths-*/*.safetensors",
    "interpolate": "interpolate-*/*.safetensors",
    "merge": "merge-*/part-*.parquet",
}


@dataclass(frozen=True)
class RunFolder:
    """A run: its config file, its folder, and how it is started.

    Attributes:
        overrides: fields that every start of it replaces.
    """

    config: Path
    path: Path
    overrides: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """`rayclean run` of this run."""
        fixed = (f"run.dir={self.path}", *self.overrides)
        return [str(BIN / "rayclean"), "run", str(self.config), *fixed, *arguments]

    def load(self) -> Config:
        """Its config."""
        return load_config(self.config, [f"run.dir={self.path}", *self.overrides])

    def copy_without(self, stages: Sequence[str], path: Path) -> RunFolder:
        """A copy that lacks these stages; the table goes with `merge`."""
        left_out = [pattern for stage in stages for pattern in (f"{stage}-*", *BESIDE.get(stage, ()))]
        shutil.copytree(self.path, path, ignore=shutil.ignore_patterns(*left_out))
        return RunFolder(self.config, path, self.overrides)

    def copy_until(self, stage: str, path: Path) -> RunFolder:
        """A copy that ends before a stage."""
        return self.copy_without(STAGES[STAGES.index(stage) :], path)


@dataclass(frozen=True)
class Finished:
    """A run that ended, and what its command left."""

    run: RunFolder
    ended: Ended


def finish(run: RunFolder, env: dict[str, str], logs: Path, *arguments: str) -> Ended:
    """Starts a run and waits for its end."""
    with started(run.command(*arguments), env, logs) as driver:
        return driver.wait(RUN_TIMEOUT_S)
