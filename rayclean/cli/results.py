"""The commands that use what a run has found: learn, report, review, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rayclean.cli.common import AsJson, Overrides, RunDir, Verbose, beginning, err, listing, out, print_json
from rayclean.config import override_config
from rayclean.config.reference import Sections
from rayclean.errors import ConfigError
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.learn.methods import METHODS
from rayclean.run.saved import load_run


def learn(
    folder: RunDir,
    overrides: Overrides = None,
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="How, see below.", autocompletion=beginning(METHODS.names))
    ] = "retrain",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train with the result of a run. The same command continues it."""
    config = override_config(load_run(folder), overrides or [])
    from rayclean.learn import command
    from rayclean.learn.result import print_learned

    result = command.learn(config, method, err, verbose)
    print_json(result.to_json()) if as_json else print_learned(out, folder, result)


def report(
    folder: RunDir,
    output: Annotated[str | None, typer.Option("--out", metavar="FOLDER", help="Not RUN/report.")] = None,
    top: Annotated[int, typer.Option(metavar="N", help="Show about N of the worst samples.")] = 2000,
) -> None:
    """Write a folder of pages that a browser opens: what is wrong, how sure that is, and the pictures."""
    config = load_run(folder)
    from rayclean.report.command import write_report

    out.print(f"open {write_report(config, output, top)}", markup=False)


def review(
    folder: RunDir,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8365,
    reviewer: Annotated[str | None, typer.Option(metavar="NAME", help="Who decides; the page asks otherwise.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, max=100_000, help="N rows drawn at random, to estimate the noise rate."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write them there, to be labelled elsewhere; if it is there, tell the rate."),
    ] = None,
) -> None:
    """Serve a page on this machine where people decide; `merge.verified=review` takes their decisions in."""
    if csv is not None and sample is None:
        raise ConfigError(f"--csv {csv}: is the list of a sample; say by --sample N how many rows it has")
    config = load_run(folder)
    from rayclean.review.command import list_survey, serve_review

    if csv is not None and sample is not None:
        list_survey(config, sample, csv, out)
    else:
        serve_review(config, port, reviewer, err, sample)


def export(
    folder: RunDir,
    to: Annotated[
        str,
        typer.Option("--to", metavar="KIND", help="The form, see below.", autocompletion=beginning(EXPORT_KINDS.names)),
    ],
    output: Annotated[str, typer.Option("--out", metavar="PATH", help="Folder or URL, new or of the same export.")],
    cut: Annotated[float | None, typer.Option(help="Keep rows with label_score of at least this.")] = None,
    budget: Annotated[int | None, typer.Option(help="Keep this many rows; with --removed, remove this many.")] = None,
    precision: Annotated[float | None, typer.Option(help="Remove as many as are wrong with this probability.")] = None,
    labels: Annotated[
        str, typer.Option(help="given, verified (what people say), or predicted where that is sure.")
    ] = "given",
    sure: Annotated[float | None, typer.Option(help="predicted_score from which a label is replaced; 0.9.")] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Export what is removed instead.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most this many rows.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write the kept or relabelled samples, or lists of them, for other tools. The same command continues it."""
    config = load_run(folder)
    from rayclean.evaluate.results_text import print_export
    from rayclean.export import command
    from rayclean.export.options import ExportOptions

    options = ExportOptions(cut, budget, precision, labels, sure, removed, limit)
    summary = command.export(config, to, output, options, err, verbose)
    print_json(summary) if as_json else print_export(out, output, summary)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(cls=listing(METHODS, Sections()))(learn)
    app.command()(report)
    app.command()(review)
    app.command(cls=listing(EXPORT_KINDS))(export)
