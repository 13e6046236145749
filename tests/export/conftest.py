"""A run whose labels are as doubtful as the tests need them; units are computed here, without Ray."""

from __future__ import annotations

import pytest

from rayclean.config import Config
from rayclean.export import command
from rayclean.run.run import Run
from tests.export.runs import compute_here, doubtful_run


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "compute_units", compute_here)


@pytest.fixture(scope="session")
def doubtful(scored: Run, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Only to be read."""
    return doubtful_run(scored, tmp_path_factory.mktemp("doubtful") / "run")
