"""How the package is built, counted: modules, arrows between them, long functions; one column per tree.

    .venv/bin/python tools/bench/counts.py                      # this tree
    .venv/bin/python tools/bench/counts.py 72a765c .            # a revision beside it
    .venv/bin/python tools/bench/counts.py 72a765c . --planning # also what planning a finished run's merge enters

| count | what it is |
|---|---|
| modules at the root | files of `rayclean/` itself, `__init__.py` among them |
| modules | all files of the package |
| lines | of all of them, blank ones too |
| arrows | pairs of modules of which one imports the other, inside functions and for types alone too |
| long functions | over 40 lines from `def` to the end, with their docstring |
| wide functions | over 6 parameters, without `self` and `cls` |
| dict[str, Any] | places in annotations and elsewhere where it is written |
| planning | see `counts_planning.py`; of a run of 300 digits with two snapshots and the default scores |

Planning does the run first, which takes minutes on a small machine.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import yaml

from rayclean.shards.write import write_shards
from tools.bench.same_bytes_cases import base, joined
from tools.bench.same_bytes_runs import ROOT, Revision, call, checked_out, environment
from tools.data.make_digits import digit_samples

PACKAGE = "rayclean"
LONG_LINES, WIDE_PARAMETERS = 40, 6
NUM_DIGITS = 300
Function = ast.FunctionDef | ast.AsyncFunctionDef


def count(tree: Path) -> dict[str, int]:
    """The counts of a tree, by what they are of.

    Raises:
        SystemExit: it holds no package.
    """
    paths = sorted((tree / PACKAGE).rglob("*.py"))
    if not paths:
        raise SystemExit(f"{tree} holds no {PACKAGE}/ with Python files; name a folder that does, or a revision")
    texts = {path.relative_to(tree): path.read_text() for path in paths}
    parsed = {path: ast.parse(text) for path, text in texts.items()}
    nodes = [node for module in parsed.values() for node in ast.walk(module)]
    functions = [node for node in nodes if isinstance(node, Function)]
    return {
        "modules at the root": sum(path.parent == Path(PACKAGE) for path in parsed),
        "modules": len(parsed),
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "arrows": len(arrows(parsed)),
        "functions": len(functions),
        "long functions": sum(_num_lines(each) > LONG_LINES for each in functions),
        "wide functions": sum(_num_parameters(each) > WIDE_PARAMETERS for each in functions),
        "dict[str, Any]": sum(
            ast.unparse(node) == "dict[str, Any]" for node in nodes if isinstance(node, ast.Subscript)
        ),
    }


def arrows(parsed: Mapping[Path, ast.Module]) -> set[tuple[str, str]]:
    """Which module imports which, both of the package.

    Args:
        parsed: by path below the tree.
    """
    modules = {_module_name(path) for path in parsed}
    return {
        (_module_name(path), imported)
        for path, module in parsed.items()
        for node in ast.walk(module)
        for imported in _imported(node, path, modules)
        if imported in modules - {_module_name(path)}
    }


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, path: Path, modules: set[str]) -> Iterator[str]:
    """Modules that a statement imports; `from a import b` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = path.parent.parts[: len(path.parent.parts) - node.level + 1] if node.level else ()
        source = ".".join([*package, *filter(None, [node.module])])
        for alias in node.names:
            inside = f"{source}.{alias.name}"
            yield inside if inside in modules else source


def _num_lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _num_parameters(function: Function) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([*names, *filter(None, [given.vararg, given.kwarg])]) - (names[:1] in (["self"], ["cls"]))


def plan(revision: Revision) -> dict[str, int]:
    """What planning the merge of a finished run enters, in a process of its own.

    Raises:
        RunFailed: the run has not finished.
        SystemExit: its layout is not known to `counts_planning.py`.
    """
    with tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True) as folder:
        work, env = Path(folder), environment(revision, Path(folder))
        write_shards(f"{work}/data", "digits", islice(digit_samples(0.3, 0), NUM_DIGITS), NUM_DIGITS)
        train = {"epochs": 2, "snapshot_every": 1, "augment": "none"}
        config = joined(base(work / "data"), {"run": {"dir": f"{work}/run"}, "model": {"width": 4}, "train": train})
        (work / "config.yaml").write_text(yaml.safe_dump(config))
        call(revision, env, work)
        command = [sys.executable, str(Path(__file__).with_name("counts_planning.py")), f"{work}/run"]
        done = subprocess.run(command, cwd=revision.tree, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    found: dict[str, int] = json.loads(done.stdout)
    return {f"planning: {name}": value for name, value in found.items()}


def table(columns: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown, one column per tree; a count that a tree lacks stays empty."""
    names = list(dict.fromkeys(name for counts in columns.values() for name in counts))
    lines = [["count", *columns], ["---", *("--:" for _ in columns)]]
    lines += [[name, *(f"{counts[name]:,}" if name in counts else "" for counts in columns.values())] for name in names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count modules, imports and long functions of the package.")
    parser.add_argument("trees", nargs="*", default=["."], metavar="TREE", help="a folder, or a revision (this tree)")
    parser.add_argument("--planning", action="store_true", help="also do a small run and plan its merge again")
    options = parser.parse_args(arguments)
    columns: dict[str, dict[str, int]] = {}
    for name in options.trees:
        with contextlib.ExitStack() as stack:
            folder = ROOT if name == "." else Path(name)
            known = folder.is_dir()
            revision = Revision(name, None, folder.resolve()) if known else stack.enter_context(checked_out(name))
            columns[name] = count(revision.tree) | (plan(revision) if options.planning else {})
    print(table(columns))


if __name__ == "__main__":
    main()
