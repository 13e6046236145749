"""What is installed where: one FAISS a platform, a pin for each dependency, all files of the package in its wheel."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import rayclean
from tests.test_layers import read_imports

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


def test_what_the_package_imports_is_a_dependency_or_an_extra() -> None:
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "dev"}
    lines = [*PROJECT["dependencies"], *itertools.chain.from_iterable(extras.values())]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    packages = packages_distributions()
    imported = {each.top for each in read_imports(ROOT)} - set(sys.stdlib_module_names) - {"rayclean"}
    assert len(imported) > 15
    absent = {name for name in imported if not {canonicalize_name(each) for each in packages.get(name, [])} & declared}
    assert absent == set()


def _build(folder: Path) -> Path:
    """The wheel, made as `make wheel` makes it."""
    uv = Path(sys.executable).parent / "uv"
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    build = [str(uv), "build", "--python", sys.executable, "--wheel", "--out-dir", str(folder), str(ROOT)]
    ended = subprocess.run(build if uv.exists() else pip, capture_output=True, text=True, check=False)
    if ended.returncode and "hatchling" in ended.stderr:
        pytest.skip("the build's back end can neither be found nor fetched here")
    assert ended.returncode == 0, ended.stderr
    (wheel,) = folder.glob("rayclean-*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_package_and_works_alone(tmp_path: Path) -> None:
    """Installed without this folder, its command starts and its templates are found."""
    wheel = _build(tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        packed.extractall(site)
    files = (path for path in (ROOT / "rayclean").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"rayclean/py.typed", "rayclean/report/templates/report.css"} <= names
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import rayclean.cli as cli\n"
        "from rayclean.review.server import FOLDER; assert (FOLDER / 'page.html.j2').exists()\n"
        "assert cli.__file__.startswith(sys.path[0]); cli.main()"
    )
    command = [sys.executable, "-P", "-c", code, str(site), "convert", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "imagefolder" in shown.stdout


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
