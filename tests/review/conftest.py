"""A finished run of a few digits, made once; each test that decides has a copy of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rayclean.config import Config, dump_config, load_config
from rayclean.run.run import Run
from rayclean.shards.write import write_shards
from tests.review.runs import NAMES, copied, digit_samples


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, finish: Callable[..., Run]) -> Config:
    """A run with its table. Only to be copied."""
    folder = tmp_path_factory.mktemp("review")
    write_shards(str(folder / "shards"), "digits", digit_samples(), 40)
    tree = {
        "run": {"dir": str(folder / "run")},
        "data": {"shards": f"{folder}/shards/*.tar", "label": "json:label", "classes": list(NAMES), "size": 8},
        "model": {"width": 8},
        "train": {"epochs": 12, "snapshot_every": 6, "batch_size": 32, "precision": "float32", "augment": "none"},
        "score": {"precision": "float32", "batch_size": 64},
        "scores": ["loss", "ens_loss", "aum", "iofm", "vote"],
        "iofm": {"num": 3},
        "blocks": {"rows": 64, "table_rows": 128},
    }
    (folder / "given.yaml").write_text(yaml.safe_dump(tree))
    config = load_config(folder / "given.yaml")
    run = finish(config)
    run.store.publish("config.yaml", yaml.safe_dump(dump_config(config)).encode())
    return config


@pytest.fixture
def reviewed(finished: Config, tmp_path: Path) -> Config:
    """A copy of the run."""
    return copied(finished, tmp_path / "digits")
