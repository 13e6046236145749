"""The counts are those of a tree whose figures are known, and planning is watched call by call."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rayclean.config import Config, dump_config
from rayclean.run.run import Run
from tools.bench.counts import count, main, table
from tools.bench.counts_planning import main as measure
from tools.bench.counts_planning import planner, watch

LONG = "def long():\n" + "    pass\n" * 40  # 41 lines
FILES = {
    "__init__.py": '"""A package."""\n',
    "errors.py": LONG + "def short():\n" + "    pass\n" * 39,
    "a/__init__.py": "from rayclean import errors\n",
    "a/one.py": "from . import two\nfrom .. import errors\nimport os, rayclean.errors\n"
    "def wide(a, b, /, c, d, *e, f, **g) -> dict[str, Any]: ...\n",
    "a/two.py": "def late():\n    from rayclean.a.one import wide\n"
    "class C:\n    def six(self, a, b, c, d, e, f): ...\n    x: 'dict[str, Any]'\n    y: dict[str, int]\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "tree/rayclean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def test_each_count_is_known(tree: Path) -> None:
    assert count(tree) == {
        "modules at the root": 2,
        "modules": 5,
        "lines": 1 + 41 + 40 + 1 + 4 + 6,
        "arrows": 4,  # a -> errors; a.one -> a.two and errors, however often; a.two -> a.one
        "functions": 5,
        "long functions": 1,
        "wide functions": 1,
        "dict[str, Any]": 1,
    }


def test_trees_stand_side_by_side(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tree), "."])
    header, _, first, *_ = capsys.readouterr().out.splitlines()
    assert header == f"| count | {tree} | . |"
    assert first.startswith("| modules at the root | 2 | ")
    assert table({"x": {"n": 1234}, "y": {}}).splitlines()[-1] == "| n | 1,234 |  |"
    with pytest.raises(SystemExit, match="holds no rayclean/"):
        main([str(tree / "rayclean")])


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str, str], ModuleType]:
    """Loads a module from a text below the folder."""

    def do(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return do


def test_moves_are_calls_into_another_module(load: Callable[[str, str], ModuleType], tmp_path: Path) -> None:
    there = load("there", "def key(x):\n    return -x\ndef numbers():\n    yield 1\n    yield 2\n")
    here = load(
        "here", "def begin(there):\n    local()\n    return sorted(there.numbers(), key=there.key)\ndef local(): ...\n"
    )
    # From `begin`: three times into the generator, the last time for its end, and twice into the key for `sorted`.
    assert watch(lambda: here.begin(there), tmp_path) == {"modules": 2, "functions": 4, "moves": 5}
    assert watch(lambda: here.local(), tmp_path) == {"modules": 1, "functions": 1, "moves": 0}


def test_this_layout_is_known(
    tiny_config: Callable[..., Config],
    finish: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = finish(tiny_config(tmp_path / "run"))
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(dump_config(run.config)))
    assert [job.stage for job in planner(run.config.run.dir)()] == ["merge", "merge"]
    measure(run.config.run.dir)
    found = json.loads(capsys.readouterr().out)
    assert 1 < found["modules"] < found["functions"]
    assert found["moves"] >= found["modules"] - 1  # each but the first is entered from another
