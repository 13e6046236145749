"""What `rayclean learn` and `rayclean export` print holds all of the result, and no markup of strangers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayclean.evaluate.results_text import print_export, print_learned

Result = dict[str, Any]


def console() -> tuple[Console, io.StringIO]:
    """As the command line's: a file of 160 columns."""
    sink = io.StringIO()
    return Console(file=sink, width=160, soft_wrap=True, highlight=False, emoji=False), sink


def learned(*trials: Result, root: str = "/runs/one") -> list[str]:
    to, sink = console()
    print_learned(to, root, "learn/odd-1.json", {"method": "odd", "trials": list(trials)})
    return sink.getvalue().splitlines()


def exported(out: str = "/out", **changes: Any) -> list[str]:
    to, sink = console()
    summary = {"to": "csv", "rows": 1000, "exported": 900, "files": 3, "reasons": {}, "notes": [], **changes}
    print_export(to, out, summary)
    return sink.getvalue().splitlines()


def trial(name: str = "on everything", accuracy: dict[int, float] | None = None, **more: Any) -> Result:
    accuracy = accuracy or {}
    best, last = max(accuracy.values(), default=None), accuracy[max(accuracy)] if accuracy else None
    facts: Result = {"validation": {}, "facts": {}, "removal": None, **more}
    return {"name": name, "best": best, "last": last, "accuracy": accuracy, **facts}


@given(st.dictionaries(st.integers(1, 9), st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_each_network_is_a_line_of_its_figures(accuracy: dict[int, float], validation: float) -> None:
    found = trial("ODD", accuracy, validation={1: 0.0, 2: validation})
    _, line, kept = learned(found)
    assert line.split() == ["ODD", *(f"{100 * value:.1f}%" for value in (found["best"], found["last"], validation))]
    assert kept == "kept in /runs/one/learn/odd-1.json"


def test_what_a_lesson_left_out_is_told_and_what_was_undone() -> None:
    removal = {"removed": 1200, "relabelled": 0, "rows": 10_000}
    lines = learned(
        trial("round 1", {1: 0.5}, removal=removal | {"precision": 0.75}),
        trial("round 2", {1: 0.5}, removal=removal | {"precision": None}, facts={"undone": True}),
        trial("round 3", {1: 0.5}, removal=removal),  # of shards without a truth
    )
    assert lines[1].split()[-4:] == ["1,200", "of", "10,000", "75.0%"]
    assert lines[2].startswith("round 2 (undone)")
    assert [line.split()[-3:] for line in lines[2:4]] == [["1,200", "of", "10,000"]] * 2


def test_without_test_samples_the_field_that_names_them_is_named() -> None:
    said = "no accuracy: set learn.test to shards whose labels are right"
    assert said in learned(trial(), trial())
    assert said not in learned(trial(), trial(accuracy={1: 0.0}))


@pytest.mark.parametrize("place", ["[red]/runs/x[/red]", "/runs/[/]", "s3://bucket/[bold]"])
def test_a_place_is_printed_as_it_is(place: str) -> None:
    assert learned(trial(), root=place)[-1] == f"kept in {place}/learn/odd-1.json"
    assert f" to {place} (" in exported(place)[0]


def test_an_export_says_how_many_rows_went_where_and_why_others_did_not() -> None:
    lines = exported(reasons={"kept": 900, "below_cut": 12_345}, notes=["one [red]note[/red]", "another"])
    assert lines == [
        "900 of 1,000 rows exported as csv to /out (3 files, with README.md and croissant.json)",
        "  kept: 900",
        "  below_cut: 12,345",
        "note: one [red]note[/red]",
        "note: another",
    ]
    assert "(1 file, with" in exported(files=1)[0]
