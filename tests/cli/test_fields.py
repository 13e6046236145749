"""Helps speak of fields in the fields' own words."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rayclean.cli import commands
from rayclean.config.reference import Sections, find
from rayclean.errors import ConfigError

WIDE = {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(commands.app, arguments, env=WIDE)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", ["run", "plan", "doctor", "learn"])
def test_the_help_of_what_takes_fields_lists_the_sections(command: str) -> None:
    _, _, listed = shown(command, "--help").partition("section.field=value (")
    assert all(section.name in listed and section.help in listed for section in Sections())


def test_a_section_is_shown_with_its_fields_and_what_they_may_name() -> None:
    text = shown("fields", "noise")
    assert all(f"noise.{line.name}: " in text and line.meaning in text for line in find("noise").fields)
    assert "symmetric_exclusive  any of the other K-1 classes" in text


def test_a_field_is_shown_alone() -> None:
    assert shown("fields", "train.lr").splitlines()[1:] == [
        "train.lr: number > 0, default 0.1; 0.0001 with adamw",
        f"    {find('train.lr').fields[0].meaning}",
    ]


def test_without_a_name_all_sections_are_shown() -> None:
    assert "learn.dividemix" in shown("fields")


def test_what_is_no_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'data\.shards'"):
        CliRunner().invoke(commands.app, ["fields", "data.shard"], catch_exceptions=False, standalone_mode=False)
