"""What `rayclean export` prints holds all of the result, and no markup of strangers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rayclean.evaluate.results_text import print_export


def console() -> tuple[Console, io.StringIO]:
    """As the command line's: a file of 160 columns."""
    sink = io.StringIO()
    return Console(file=sink, width=160, soft_wrap=True, highlight=False, emoji=False), sink


def exported(out: str = "/out", **changes: Any) -> list[str]:
    to, sink = console()
    summary = {"to": "csv", "rows": 1000, "exported": 900, "files": 3, "reasons": {}, "notes": [], **changes}
    print_export(to, out, summary)
    return sink.getvalue().splitlines()


@pytest.mark.parametrize("place", ["[red]/runs/x[/red]", "/runs/[/]", "s3://bucket/[bold]"])
def test_a_place_is_printed_as_it_is(place: str) -> None:
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
