"""Commands that only look at a run answer at once: nothing that takes seconds to import is loaded for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from rayclean.config import Config
from rayclean.run import pipeline
from rayclean.run.run import Run
from tests.feature_runs import clusters, feature_config, key_of, write_feature_shards

# What takes from half a second to three to import.
HEAVY = ("torch", "ray", "faiss", "sklearn", "torchvision", "matplotlib", "scipy.special", "scipy.stats")
# It leaves as `main` does: threads of libraries may abort at the interpreter's own end.
CALL = """
import os, sys
from rayclean.cli import commands
code = commands.call()
print(*sorted(set(commands.sys.stdin.read().split()) & set(sys.modules)), file=sys.stderr, flush=True)
sys.stdout.flush()
os._exit(code)
"""
HELP = (("--version",), ("--help",), ("run", "--help"), ("export", "--help"), ("learn", "--help"))
KEYS = {"network": "k03", "features": key_of(3)}
LOOKS = (("status",), ("status", "--json"), ("errors",), ("show",), ("gc", "--dry-run"))


def _loaded(*arguments: str) -> set[str]:
    """Which of HEAVY a command loads."""
    ended = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], input=" ".join(HEAVY), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def done(
    finish: Callable[..., Run], tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The folders of two finished runs: with a network that is trained, and on features."""
    folder = tmp_path_factory.mktemp("quick")
    trained = tiny_config(folder / "network", "train.epochs=2", "train.from=", "run.executor=inline")
    shards = write_feature_shards(folder / "shards", clusters())
    found = {"network": trained, "features": feature_config(folder / "features", shards)}
    for config in found.values():
        pipeline.run(config, None, Console(quiet=True))
    return {name: config.run.dir for name, config in found.items()}


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
@pytest.mark.parametrize("kind", KEYS)
def test_looking_at_a_run_loads_nothing_heavy(command: tuple[str, ...], kind: str, done: dict[str, str]) -> None:
    name, *options = command
    key = [KEYS[kind]] if name == "show" else []
    assert _loaded(name, done[kind], *key, *options) == set()


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_and_version_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert _loaded(*arguments) == set()


def test_what_loads_them_is_seen(done: dict[str, str]) -> None:
    assert "sklearn" in _loaded("evaluate", done["network"])
