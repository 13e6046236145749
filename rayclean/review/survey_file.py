"""A survey as files: `RUN/review/survey.json`, by which it goes on, and a list for people who label elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from rayclean.catalog.table import Catalog
from rayclean.decisions.entries import Sample
from rayclean.decisions.naming import REVIEW
from rayclean.decisions.verified import VerifiedFile, find_rows
from rayclean.errors import ConfigError, InputError
from rayclean.review.survey import Drawn, Stratum, Survey
from rayclean.storage.contents import read_json, write
from rayclean.storage.given_tables import encode_csv
from rayclean.storage.store import Store

SURVEY = f"{REVIEW}/survey.json"


def open_survey(store: Store, asked: int, draw: Callable[[], Survey]) -> Survey:
    """The run's survey; it is drawn and published where there is none.

    Args:
        store: the run.
        asked: how many rows it is to have.
        draw: makes it.

    Raises:
        ConfigError: another number of rows was asked for before.
        InputError: the file is none that a review writes.
    """
    if not store.exists(SURVEY):
        survey = draw()
        write(store, SURVEY, asdict(survey))
        return survey
    survey = read_survey(store)
    if survey.asked != asked:
        raise ConfigError(
            f"--sample {asked}: {store.full(SURVEY)} has a sample of {survey.asked} rows; go on with --sample "
            f"{survey.asked}, or remove the file to draw another one"
        )
    return survey


def read_survey(store: Store) -> Survey:
    """The survey that was published."""
    fields = read_json(store, SURVEY)
    try:
        strata = tuple(Stratum(**each) for each in fields.pop("strata"))
        rows = tuple(Drawn(*each) for each in fields.pop("rows"))
        return Survey(**fields, strata=strata, rows=rows)
    except (TypeError, KeyError) as e:
        raise InputError(
            f"{store.full(SURVEY)}: is no sample of a review ({e}); remove it, and another one is drawn"
        ) from e


def write_list(survey: Survey, path: Path) -> None:
    """The rows as CSV, with an empty column `label` to fill in; `merge.verified` takes it.

    Raises:
        ConfigError: it cannot be written.
    """
    rows = survey.rows
    text = {name: pa.array([getattr(each, name) for each in rows], pa.string()) for name in ("shard", "key", "given")}
    table = pa.table(
        {
            "shard": text["shard"],
            "key": text["key"],
            "given_label": text["given"],
            "label": pa.array([None] * len(rows), pa.string()),
            "stratum": pa.array([each.stratum for each in rows], pa.int64()),
            "weight": pa.array([survey.strata[each.stratum].weight for each in rows], pa.float64()),
        }
    )
    try:
        with path.open("xb") as file:
            file.write(encode_csv(table))
    except OSError as e:
        raise ConfigError(f"--csv {path}: cannot be written: {e.strerror or e}") from e


def wrong_by_list(survey: Survey, path: Path, catalog: Catalog, names: tuple[str, ...]) -> dict[Sample, bool]:
    """Whether the labels of a survey's rows are wrong, as far as its list is filled in.

    Raises:
        RaycleanError: the list is none, or names rows or classes that are not there.
    """
    verified = VerifiedFile(str(path), "", names).find(catalog)
    right = dict(zip(verified.rows.tolist(), verified.labels.tolist(), strict=True))
    found = find_rows(catalog, [each.key for each in survey.rows], [each.shard for each in survey.rows])
    return {
        each.sample: bool(right[row] != catalog.label[row])
        for each, rows in zip(survey.rows, found, strict=True)
        for row in rows
        if row in right
    }
