"""What stands in place of a label or a row has one name a meaning, in `rayclean/schema.py` alone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rayclean import schema

ROOT = Path(__file__).parents[1] / "rayclean"
CODES = {"NONE_OF_CLASSES": -1, "UNKNOWN": -9, "NO_LABEL": -1, "DROPPED": -2, "LEFT_OUT": -1, "NO_ROW": -1}
# What fills or picks labels and rows; elsewhere -1 is an axis, a shape or the last of a sequence.
FILLS = ("where", "full", "full_like", "fill_null", "nan_to_num")


def _is_code(node: ast.expr | None) -> bool:
    """Whether it is a whole number below 0, written out."""
    return (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and type(node.operand.value) is int
    )


def definitions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of a module that are given a number below 0, or that the schema has."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            yield from ((node.lineno, name) for name in names if _is_code(node.value) or name in CODES)


def bare_numbers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Codes that are compared with, or filled in, as numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            values = [node.left, *node.comparators] if isinstance(node.ops[0], ast.Eq | ast.NotEq) else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILLS:
            values = node.args
        else:
            values = []
        values += [node.value] if isinstance(node, ast.keyword) and node.arg == "constant_values" else []
        yield from ((value.lineno, ast.unparse(node)) for value in values if _is_code(value))


@pytest.mark.parametrize("find", [definitions, bare_numbers])
def test_no_other_module_has_codes_of_its_own(find: Callable[[ast.Module], Iterator[tuple[int, str]]]) -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
    found = [
        f"{name}:{line} {text}"
        for name, path in files.items()
        if name != "schema.py"
        for line, text in find(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, f"{find.__doc__}\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("find", "text", "found"),
    [
        (definitions, "NOBODY = -1", ["NOBODY"]),
        (definitions, "DROPPED: int = other", ["DROPPED"]),
        (definitions, "A = B = -2\nSTEP = -1.0\nEND = 3", ["A", "B"]),
        (bare_numbers, "np.where(a >= 0, a, -1)", ["np.where(a >= 0, a, -1)"]),
        (bare_numbers, "if label != -2: pass", ["label != -2"]),
        (bare_numbers, "np.pad(a, 1, constant_values=-1)", ["constant_values=-1"]),
        (bare_numbers, "a[-1], a.reshape(2, -1), np.sum(a, axis=-1), np.where(a, 1.0, -1.0)", []),
    ],
)
def test_a_code_of_another_module_is_found(
    find: Callable[[ast.Module], Iterator[tuple[int, str]]], text: str, found: list[str]
) -> None:
    assert [name for _, name in find(ast.parse(text))] == found


def test_files_keep_their_numbers() -> None:
    assert {name: getattr(schema, name) for name in CODES} == CODES
