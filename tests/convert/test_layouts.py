"""What `rayclean convert` says of the layouts, and what it takes as their options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rayclean.cli.commands import app
from rayclean.convert import cifarn, clothing1m, webvision
from rayclean.convert.layouts import LAYOUTS, Layout, Option
from rayclean.convert.samples import Options
from rayclean.errors import ConfigError


def shown(*command: str) -> str:
    """What a help says, in one line, without the frame around it."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["convert", *command, "--help"])
    assert result.exit_code == 0
    return " ".join(result.stdout.replace("│", " ").split())


def test_the_help_lists_all_layouts() -> None:
    said = shown()
    for layout in LAYOUTS:
        assert f"{layout.name} {layout.meaning}" in said


@pytest.mark.parametrize("layout", list(LAYOUTS), ids=lambda layout: layout.name)
def test_the_help_of_a_layout_says_what_it_takes_and_writes(layout: Layout) -> None:
    said = shown(layout.name)
    assert f"Convert {layout.meaning}." in said
    for paragraph in (
        layout.details,
        "Writes OUT/classes.txt for data.classes",
        *(each.help for each in layout.options),
    ):
        assert " ".join(paragraph.split()) in said
    shared = ("seed", "shard-size", "workers", "max-missing")
    assert all(f"--{name} " in said for name in (*shared, *(option.name for option in layout.options)))
    assert all(choice in said for option in layout.options for choice in option.choices)


def test_choices_are_those_of_the_layouts_own_files() -> None:
    """Which are not imported for a help."""
    choices = {(layout.name, option.name): option.choices for layout in LAYOUTS for option in layout.options}
    assert choices["clothing1m", "splits"] == (*clothing1m.LISTS, clothing1m.BOTH)
    assert choices["webvision", "source"] == (*webvision.SOURCES, "both")
    assert choices["cifarn", "set"] == tuple(cifarn.SETS)


def test_values_of_options() -> None:
    assert Option("a", "-", default="x").value(None) == "x"
    assert Option("a", "-").value(None) is None
    assert Option("a", "-", counts=True).value("12") == 12
    several = Option("a", "-", choices=("x", "y", "z"), many=True)
    assert several.value(None) == several.value([]) == ["x", "y", "z"]
    assert several.value(["z", "x", "z"]) == ["z", "x"]
    assert several.value("y") == ["y"]
    assert Option("a", "-", many=True).value(()) == []


@pytest.mark.parametrize(
    ("option", "given"),
    [
        (Option("a-b", "-", counts=True), "0"),
        (Option("a-b", "-", counts=True), "-1"),
        (Option("a-b", "-", counts=True), "1.5"),
        (Option("a-b", "-", choices=("x", "y")), "z"),
        (Option("a-b", "-", choices=("x", "y"), many=True), ["x", "z"]),
    ],
)
def test_values_out_of_range_are_refused(option: Option, given: str | list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--a-b .*: expected"):
        option.value(given)


def test_options_that_a_layout_has_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="found option --scratch, expected --split, --classes"):
        LAYOUTS.get("imagefolder").values({"scratch": "x"})


@pytest.mark.parametrize("wrong", [{"shard_size": 0}, {"workers": 0}, {"max_missing": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"--(shard-size|workers|max-missing) -?[01]: expected"):
        Options(**wrong)


@pytest.mark.parametrize("arguments", [["nosuch", "a", "b"], ["cifarn", "a"], ["cifarn", "a", "b", "--workers", "0"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["convert", *arguments]).exit_code == 2
