"""What a shell completes, asked as the shell asks, and that `--install-completion` writes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayclean.config.registry import Registry
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.learn.methods import METHODS
from rayclean.run.grow import stages

CALL = "import sys; sys.argv[0] = 'rayclean'; from rayclean.cli import main; main()"
NO_DETECTION = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else it is the shell that runs the tests
HEAVY = {"torch", "ray", "sklearn", "faiss"}


def _asked(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("_RAYCLEAN")}
    ended = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], env=kept | env, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def _as_bash(typed: str) -> dict[str, str]:
    """How bash asks for the last word of a line."""
    words = typed.split(" ")
    return {"_RAYCLEAN_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}


def _completed(typed: str) -> list[str]:
    return _asked(**_as_bash(typed)).stdout.split()


def test_commands_and_options_are_completed() -> None:
    assert _completed("rayclean re") == ["report", "review"]
    assert _completed("rayclean run --un") == ["--until"]


def test_stages_are_completed() -> None:
    assert _completed("rayclean run --until ") == list(stages())
    assert _completed("rayclean run --until tra") == ["train", "trajectory"]


@pytest.mark.parametrize(("option", "registry"), [("learn R --method", METHODS), ("export R --to", EXPORT_KINDS)])
def test_names_of_a_registry_are_completed(option: str, registry: Registry[Any]) -> None:
    assert _completed(f"rayclean {option} ") == list(registry.names())


def test_where_nothing_is_known_the_shell_offers_files() -> None:
    assert _completed("rayclean run con") == []
    assert "complete -o default" in _asked("--show-completion", "bash", **NO_DETECTION).stdout


def test_completion_loads_nothing_heavy() -> None:
    ended = _asked(**_as_bash("rayclean run --until me"), PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bash_completions/rayclean.sh"), ("zsh", ".zfunc/_rayclean")])
def test_it_is_installed_for_a_shell(shell: str, file: str, tmp_path: Path) -> None:
    _asked("--install-completion", shell, HOME=str(tmp_path), **NO_DETECTION)
    assert "_RAYCLEAN_COMPLETE" in (tmp_path / file).read_text()
