"""A sample's files: it is drawn once, and its list comes back as verified labels."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayclean.cli import commands
from rayclean.config import Config
from rayclean.decisions.verified import VerifiedFile
from rayclean.errors import ConfigError, InputError
from rayclean.review.command import list_survey, survey_of
from rayclean.review.survey_file import SURVEY, open_survey, read_survey
from rayclean.run.start import look
from rayclean.schema import DROPPED
from rayclean.storage.contents import encode
from rayclean.storage.store import Store
from tests.review.runs import NAMES


def told(config: Config, path: Path, asked: int = 30) -> str:
    said = io.StringIO()
    list_survey(config, asked, path, Console(file=said, width=1000))
    return said.getvalue()


def fill(path: Path, label: dict[str, str]) -> None:
    """Writes labels by key into a list."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows({**line, "label": label.get(line["key"], "")} for line in lines)


def test_it_is_drawn_once(reviewed: Config) -> None:
    store = Store(reviewed.run.dir)
    first = survey_of(reviewed, 30)
    data = store.read(SURVEY)
    assert read_survey(store) == first == survey_of(reviewed, 30)
    with pytest.raises(ConfigError, match=r"--sample 20: .*has a sample of 30 rows; go on with --sample 30"):
        survey_of(reviewed, 20)
    store.remove(SURVEY)
    assert survey_of(reviewed, 30) == first
    assert store.read(SURVEY) == data, "the same bytes for the same table"


@pytest.mark.parametrize("text", ['{"asked": 30}', '{"strata": [{}], "rows": []}', '{"strata": [], "rows": [[1]]}'])
def test_a_file_that_is_no_sample_is_one_line(text: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish(SURVEY, text.encode())
    with pytest.raises(InputError, match="is no sample of a review"):
        open_survey(store, 30, lambda: pytest.fail("it was drawn"))


def test_a_sample_of_other_rows_is_refused(reviewed: Config) -> None:
    survey = replace(survey_of(reviewed, 30), known=7)
    Store(reviewed.run.dir).publish(SURVEY, encode(SURVEY, asdict(survey), "{}"))
    with pytest.raises(InputError, match="is a sample of 247 rows, the table has 240"):
        survey_of(reviewed, 30)


def test_a_list_that_is_filled_in_tells_the_rate_and_is_taken_in(reviewed: Config, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    assert "fill its column label in" in told(reviewed, path)
    survey, catalog = survey_of(reviewed, 30), look(reviewed, Store(reviewed.run.dir)).catalog
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(each["shard"], each["key"]) for each in lines] == [each.sample for each in survey.rows]
    assert [each["given_label"] for each in lines] == [each.given for each in survey.rows]
    assert sum(float(each["weight"]) for each in lines) == pytest.approx(240)
    assert "0 of 30 rows of the sample are verified; for a noise rate" in told(reviewed, path)
    source = VerifiedFile(str(path), "", NAMES)
    assert not len(source.find(catalog).rows)
    given = {each.key: each.given for each in survey.rows}
    wrong = [each.key for each in survey.rows][::3]
    label = {**given, **dict.fromkeys(wrong, "drop")}
    last = survey.rows[-1].key
    fill(path, {key: name for key, name in label.items() if key != last})
    drawn = np.array([each.drawn for each in survey.strata])
    faults = np.array([sum(each.stratum == i and each.key in wrong for each in survey.rows) for i in range(len(drawn))])
    drawn[survey.rows[-1].stratum] -= 1
    rate = sum(each.rows * bad / n for each, bad, n in zip(survey.strata, faults, drawn, strict=True)) / 240
    assert f"noise rate by 29 of 30 rows of the sample: {rate:.3f} (" in told(reviewed, path)
    found = source.find(catalog)
    assert len(found.rows) == 29
    assert (found.labels == DROPPED).sum() == len(wrong)


def test_a_list_needs_a_sample_and_a_place(reviewed: Config, tmp_path: Path) -> None:
    result = CliRunner().invoke(commands.app, ["review", reviewed.run.dir, "--csv", str(tmp_path / "x.csv")])
    assert isinstance(result.exception, ConfigError)
    assert "say by --sample N" in str(result.exception)
    with pytest.raises(ConfigError, match=r"--csv .*cannot be written"):
        told(reviewed, tmp_path / "no/where.csv")
