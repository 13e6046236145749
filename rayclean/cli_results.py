"""The commands that use what a run has found: learn, report, review, export."""

from __future__ import annotations

from typing import Annotated

import typer

from rayclean.cli_common import AsJson, Overrides, RunDir, Verbose, err, load_run, out, print_json
from rayclean.config import override_config


def learn(
    folder: RunDir,
    overrides: Overrides = None,
    method: Annotated[str, typer.Option(help="plain, retrain, odd, influential_rank, dividemix or rog.")] = "retrain",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train with the result of a run. The same command continues it."""
    config = override_config(load_run(folder), overrides or [])
    from rayclean import learning
    from rayclean.report.learn_text import print_learned

    result = learning.learn(config, method, err, verbose)
    print_json(result.to_json()) if as_json else print_learned(out, folder, result.file, result.to_json())


def report(
    folder: RunDir,
    output: Annotated[str | None, typer.Option("--out", metavar="FOLDER", help="Not RUN/report.")] = None,
    top: Annotated[int, typer.Option(metavar="N", help="Show about so many of the worst samples.")] = 2000,
) -> None:
    """Write a folder of pages that a browser opens: what is wrong, how sure that is, and the pictures."""
    config = load_run(folder)
    from rayclean.pages import write_report

    out.print(f"open {write_report(config, output, top)}", markup=False)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (learn, report):
        app.command()(command)
