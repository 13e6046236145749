"""docs/config.md is what the fields say of themselves, and they all say something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from rayclean.config import Config, parse_config
from rayclean.config.reference import REGISTRIES, FieldLine, Sections, find, kind_of, kinds_of, markdown, sections
from rayclean.config.sections import Section
from rayclean.errors import ConfigError

CONFIG_MD = Path(__file__).parents[2] / "docs/config.md"
LEAST: dict[str, Any] = {"run": {"dir": "r"}, "data": {"shards": "s", "classes": 2}}
LINES = [(place, line) for section in sections() for place in section.names for line in section.fields]


class Inner(Section):
    """Inside."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """In one
    paragraph."""


class Outer(Section):
    """Outside."""

    one: Inner = Inner()
    """The first."""
    two: Inner = Inner()
    """The second."""
    many: list[int] = Field(default=[1], alias="all")
    """A list."""


def test_the_page_is_what_the_command_makes() -> None:
    assert CONFIG_MD.read_text() == markdown(), "python -m rayclean.config.reference > docs/config.md"


@pytest.mark.parametrize(("place", "line"), LINES, ids=[f"{place}.{line.name}" for place, line in LINES])
def test_each_field_says_what_it_does(place: str, line: FieldLine) -> None:
    assert re.search(r"[.)]$", line.meaning), "write a sentence below the field"
    assert line.kind


def test_each_section_says_what_it_is_for() -> None:
    assert [section.name for section in sections() if not section.help.endswith(".")] == []


def test_defaults_are_those_of_a_config() -> None:
    """Each default in words, put into a config as YAML, changes nothing."""
    config = parse_config(LEAST)
    for place, line in LINES:
        said = re.match("`([^`]*)`", line.default)
        if said and not place.startswith("resources."):
            assert parse_config(_with(place, line.name, said[1])) == config, f"{place}.{line.name}"


def _with(place: str, name: str, text: str) -> dict[str, Any]:
    from rayclean.config.yaml_text import read_yaml

    tree: dict[str, Any] = {key: dict(value) for key, value in LEAST.items()}
    inside = tree
    for part in filter(None, place.split(".")):
        inside = inside.setdefault(part, {})
    inside[name] = read_yaml(text)[0]
    return tree


def test_sections_hold_sections() -> None:
    one_and_two, root = sections(Outer)
    assert (one_and_two.names, one_and_two.help) == (("one", "two"), "Inside.")
    assert one_and_two.fields == (FieldLine("share", "number 0 to 1", "`0.5`", "In one paragraph."),)
    assert root.fields == (FieldLine("all", "list of whole number", "`[1]`", "A list."),)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Annotated[int, Field(gt=0, lt=2**63)], "whole number > 0"),
        (Annotated[float, Field(ge=0, lt=1)] | None, "number >= 0, < 1"),
        (Literal["a", "b"], "`a`, `b`"),
        (str | list[str], "text or list of text"),
        (tuple[float, float], "2 of number"),
        (dict[str, Any], "fields"),
    ],
)
def test_types_in_words(annotation: Any, said: str) -> None:
    assert kind_of(annotation) == said


def test_a_section_or_a_field_is_found_by_its_name() -> None:
    assert find("resources.gpu").names == ("resources.cpu", "resources.gpu", "resources.train")
    assert [line.name for line in find("train.from").fields] == ["from"]
    assert [registry.field for registry in kinds_of(find("scores"))] == ["scores"]
    assert {each.field for section in sections() for each in kinds_of(section)} == {each.field for each in REGISTRIES}
    with pytest.raises(ConfigError, match=r"trian\.lr: no such section or field; did you mean 'train\.lr'\?"):
        find("trian.lr")


def test_a_help_lists_the_sections_of_a_config() -> None:
    names = [section.name for section in Sections()]
    assert names == [name for name in Config.model_fields if name != "scores"]
