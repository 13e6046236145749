"""What is installed where: one FAISS a platform, a pin for each dependency, a changelog for each version."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import rayclean

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLATFORMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    "linux-aarch64": {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    "macos-arm64": {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
    "windows-amd64": {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows"},
}
PYTHONS = ("3.11", "3.12", "3.13")
ENVIRONMENTS = {
    f"{platform}-{python}": {
        **markers,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    for (platform, markers), python in itertools.product(PLATFORMS.items(), PYTHONS)
}
each_environment = pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())


def _applying(lines: list[str], environment: dict[str, str]) -> list[Requirement]:
    """The requirements whose marker holds in an environment."""
    requirements = [Requirement(line) for line in lines]
    return [r for r in requirements if r.marker is None or r.marker.evaluate(environment)]


def _direct() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *itertools.chain.from_iterable(extras)]


def _constraints() -> list[str]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@each_environment
def test_each_platform_gets_exactly_one_faiss(environment: dict[str, str]) -> None:
    # Both share the folder faiss/: with both installed, removing either breaks the other.
    names = {canonicalize_name(r.name) for r in _applying(_direct(), environment)}
    assert len(names & {"faiss-cpu", "faiss-gpu"}) == 1


@each_environment
def test_constraints_pin_each_direct_dependency_once(environment: dict[str, str]) -> None:
    pins: dict[str, list[Version]] = {}
    for pin in _applying(_constraints(), environment):
        (specifier,) = pin.specifier
        pins.setdefault(canonicalize_name(pin.name), []).append(Version(specifier.version))
    assert [name for name, versions in pins.items() if len(versions) > 1] == []
    for requirement in _applying(_direct(), environment):
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, f"constraints.txt has no pin for {requirement.name}"
        assert requirement.specifier.contains(versions[0]), f"{requirement} against {versions[0]}"


def test_constraints_are_exact_versions_and_name_no_place() -> None:
    for line in _constraints():
        assert [s.operator for s in Requirement(line).specifier] == ["=="], line
        assert "://" not in line, line
        assert not line.startswith("-"), line


def test_the_version_is_the_projects_and_the_changelog_leads_to_it() -> None:
    assert rayclean.__version__ == PROJECT["version"]
    titles = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert titles, "CHANGELOG.md has no section '## [...]'"
    assert titles[0] in ("Unreleased", PROJECT["version"])


@pytest.mark.parametrize("program", ["python3.99", "/no/such/python3"])
def test_setup_names_a_python_that_is_not_there(program: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    ended = subprocess.run(["make", "setup", f"PYTHON={program}"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith(f"{program} is not found")
    assert "is not Python" not in ended.stderr
    assert not (tmp_path / ".venv").exists()
