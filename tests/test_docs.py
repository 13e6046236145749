"""What the pages print can be typed: commands, options, tools, targets, fields and configs are there.

README.md, CONTRIBUTING.md, cluster/README.md and docs/ but for docs/results, whose commands belong to their dates.
"""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from rayclean.cli import commands
from rayclean.config import parse_config
from rayclean.config.reference import find, sections
from rayclean.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts),
]
SHELL = ("sh", "bash", "console")
ENDS = re.compile(r"&&|\|\||[;|\n]|\s#")  # of a command, in a line of a shell
TOP = {section.name for section in sections() if section.name and "." not in section.name}
A_FIELD = re.compile(rf"(?<![\w./-])((?:{'|'.join(sorted(TOP))})(?:\.[a-z][a-z_]*)+)(?=[=`:,)\s]|$)(?!\()")
OF_CODE = ("CONTRIBUTING.md", "docs/adding.md")  # where `run` is an object
FILES = ("md", "py", "yaml", "parquet", "json", "tar", "csv")


class Place(NamedTuple):
    """A text in a page."""

    where: str
    text: str


def blocks(*languages: str) -> list[Place]:
    """The fenced blocks of these languages, with page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Place(f"{page.relative_to(ROOT)}:{line}", match[2]))
    return found


def inline() -> list[Place]:
    """What stands between backticks, outside of blocks."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        texts = re.findall(r"`([^`]+)`", text)
        found += [Place(str(page.relative_to(ROOT)), each.replace("\n", " ")) for each in texts]
    return found


def in_shell(places: list[Place]) -> list[Place]:
    """Single commands, without what is piped into them or follows."""
    lines = [(where, re.sub(r"\\\n", " ", text)) for where, text in places]
    return [Place(where, each.strip()) for where, text in lines for each in ENDS.split(text) if each.strip()]


SHELLS = in_shell(blocks(*SHELL))
CALLS = [*SHELLS, *in_shell([each for each in inline() if re.match(r"(\.venv/bin/)?rayclean [a-z]", each.text)])]


def words_of(command: str) -> list[str]:
    """Its words; brackets around what is optional are taken off."""
    try:
        return [word.strip("[]()…$") for word in shlex.split(command)]
    except ValueError:  # a quote that the page closes elsewhere
        return [word.strip("[]()…$'\"") for word in command.split()]


def arguments_of(command: str) -> list[str] | None:
    """What a call of rayclean is given; None where something else is called."""
    words = words_of(command.rpartition(" -- ")[2])  # what a submitted job calls
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words[1:] if words and Path(words[0]).name == "rayclean" else None


def mistakes(words: list[str]) -> Iterator[str]:
    """Commands and options that are not there, in what rayclean is given."""
    found: Any = typer.main.get_command(commands.app)
    context = typer.Context(found)
    while hasattr(found, "list_commands") and words and re.fullmatch("[a-z_-]+", words[0]):
        name, words = words[0], words[1:]
        if (inner := found.get_command(context, name)) is None:
            yield f"no command {name}"
            return
        found = inner
    options = {"--help", *(option for parameter in found.params for option in parameter.opts)}
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    yield from (f"no option {option}" for option in sorted(named - options))


@pytest.mark.parametrize("place", CALLS, ids=lambda place: place.text[:60])
def test_what_is_called_is_there(place: Place) -> None:
    if (words := arguments_of(place.text)) is not None:
        assert list(mistakes(words)) == [], place


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("RAY_ADDRESS=auto .venv/bin/rayclean runn x.yaml", ["no command runn"]),
        ("ray job submit --no-wait -- rayclean run x.yaml --untill train", ["no option --untill"]),
        ("rayclean export RUN --to csv [--cutt X]", ["no option --cutt"]),
        ("rayclean run x.yaml train.lr=0.1 --until train", []),
    ],
)
def test_a_mistake_is_found(command: str, found: list[str]) -> None:
    assert list(mistakes(arguments_of(command) or [])) == found


def test_the_guide_names_every_command() -> None:
    guide = (ROOT / "docs/guide.md").read_text()
    commands_there = typer.main.get_command(commands.app)
    assert [name for name in commands_there.commands if f"`rayclean {name}" not in guide] == []  # type: ignore[attr-defined]


def test_a_line_of_a_shell_is_taken_apart() -> None:
    assert [each.text for each in in_shell([Place("", "a && b \\\n c | d  # e")])] == ["a", "b   c", "d", "e"]


WRITTEN = [*SHELLS, *inline()]
TARGETS = sorted({(found[1], where) for where, text in WRITTEN if (found := re.match(r"make ([a-z-]+)", text))})


@pytest.mark.parametrize(("target", "where"), TARGETS)
def test_a_target_is_in_the_makefile(target: str, where: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where


TOOLS = [each for each in SHELLS if re.search(r"\btools/\S+\.py", each.text)]


@pytest.mark.parametrize("place", TOOLS, ids=lambda place: place.text[:60])
def test_a_tool_takes_these_options(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(place.text)
    (at,) = (number for number, word in enumerate(words) if re.match(r"tools/\S+\.py$", word))
    monkeypatch.setattr("sys.argv", [words[at], "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / words[at]), run_name="__main__")
    shown = capsys.readouterr().out
    assert ended.value.code in (0, None), place
    assert [word for word in words[at:] if word.startswith("--") and word.partition("=")[0] not in shown] == [], place


def test_files_that_are_named_are_there() -> None:
    a_path = re.compile(r"(?:^|[\s`])((?:tools|configs|docs|cluster|tests|rayclean)/[\w./-]+\.\w+)")
    named = {(path, where) for where, text in WRITTEN for path in a_path.findall(text) if "NAME" not in path}
    roots = ROOT, ROOT / "rayclean"
    assert [each for each in sorted(named) if not any((root / each[0]).exists() for root in roots)] == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_fields_that_are_named_are_fields() -> None:
    unknown = []
    for where, text in WRITTEN:
        for name in A_FIELD.findall(text):
            is_code = where in OF_CODE and name.startswith("run.")
            if name.rpartition(".")[2] not in FILES and not is_code and not _is_field(name):
                unknown.append(f"{where}: {name}")
    assert unknown == []


def _is_field(name: str) -> bool:
    """Whether it is one; `train.roles.ce.epochs` is what `train` has, by a name that people choose."""
    role = re.fullmatch(r"(?:train\.roles\.\w+|learn\.train)(?:\.(\w+))?(\.\w+)?", name)
    if role is not None:
        name = "train.roles" if not role[1] else f"model{role[2]}" if role[2] else f"train.{role[1]}"
    try:
        find(name)
    except ConfigError:
        return name == "train.model"
    return True


YAML = blocks("yaml")


@pytest.mark.parametrize("place", YAML, ids=lambda place: place.where)
def test_a_config_that_is_printed_is_one(place: Place) -> None:
    tree = yaml.safe_load(place.text)
    if isinstance(tree, dict) and set(tree) <= {*TOP, "scores"}:
        least: dict[str, dict[str, Any]] = {"run": {"dir": "r"}, "data": {"shards": "s", "classes": 2}}
        whole = {name: {**least[name], **tree.get(name, {})} for name in least}
        parse_config({**tree, **whole}, place.where)
