"""The commands: parse, load the config, call; no logic."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from rayclean import __version__
from rayclean.cli import converting, fields, results, starting
from rayclean.cli.common import (
    AsJson,
    ConfigPath,
    Lines,
    Overrides,
    RunDir,
    Verbose,
    all_stages,
    beginning,
    err,
    listing,
    out,
    print_json,
)
from rayclean.config import load_config
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS
from rayclean.config.reference import Sections
from rayclean.config.score_families import FAMILIES
from rayclean.errors import RaycleanError
from rayclean.interrupts import INTERRUPTED, raise_interrupts
from rayclean.run.saved import load_run
from rayclean.storage.units import is_full_disk

app = typer.Typer(
    name="rayclean",
    help="Finds the wrong labels in web-scale image data sets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        out.print(f"rayclean {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Finds the wrong labels in web-scale image data sets."""


@app.command(cls=listing(Sections(), FAMILIES, NOISE_KINDS, IMBALANCES))
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage.", autocompletion=beginning(all_stages))
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Do the job: shards in, a table of label scores out. The same command continues it."""
    started_s = time.monotonic()
    loaded = load_config(config, overrides or [])  # what is wrong with it is said before torch and Ray are loaded
    from rayclean.run import pipeline

    this, summary = pipeline.run(loaded, until, err, verbose)
    from rayclean.evaluate import results
    from rayclean.report.text import print_summary

    if summary is None:
        from rayclean.report.run_text import print_until

        counts = dict(zip(this.classes.names, this.catalog.class_counts.tolist(), strict=True))
        print_until(out, str(until), this.catalog.summary, counts)
        raise typer.Exit(results.exit_code(this.config, this.catalog.summary))
    truth = results.true_noise_rate(this)
    print_summary(out, this.store.root, summary, time.monotonic() - started_s, truth)
    for warning in [*results.doubts(summary), *results.warnings(this)]:
        out.print(f"warning: {warning}", markup=False)
    raise typer.Exit(results.exit_code(this.config, summary))


@app.command()
def status(folder: RunDir, as_json: AsJson = False) -> None:
    """Show how far each stage of a run is, what failed, and who holds it."""
    config = load_run(folder)
    from rayclean.inspect.status import read_status
    from rayclean.report.run_text import print_status

    found = read_status(config)
    print_json(found.to_json()) if as_json else print_status(out, found)


@app.command()
def errors(
    folder: RunDir,
    limit: Annotated[int, typer.Option(min=0, help="List this many of each kind.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List failed units, samples in quarantine and shards that are cut short."""
    config = load_run(folder)
    from rayclean.inspect.errors import find_errors
    from rayclean.report.run_text import print_errors

    found = find_errors(config, limit)
    print_json(found.to_json()) if as_json else print_errors(out, found, limit)


@app.command()
def show(
    folder: RunDir,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The sample's key.")],
    shard: Annotated[str | None, typer.Option(help="Its shard, where several have the key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one sample."""
    config = load_run(folder)
    from rayclean.inspect.show import describe
    from rayclean.report.run_text import print_sample

    facts = describe(config, key, shard)
    print_json(facts) if as_json else print_sample(out, facts)


@app.command()
def gc(
    folder: RunDir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the folders that the config of the last start does not lead to."""
    config = load_run(folder)
    from rayclean.inspect.garbage import collect
    from rayclean.report.run_text import print_garbage

    garbage = collect(config, dry_run)
    print_garbage(out, garbage, dry_run)
    if garbage.refused:
        raise typer.Exit(1)


@app.command()
def evaluate(
    folder: RunDir,
    as_json: AsJson = False,
    worst: Annotated[int, typer.Option(help="Also list this many of the worst rows.")] = 0,
    curves: Annotated[bool, typer.Option("--curves", help="Also print AUROC at every snapshot.")] = False,
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw curves and reliability.")] = None,
) -> None:
    """Compare every score with the truth, where the run has one."""
    config = load_run(folder)
    from rayclean.evaluate import results
    from rayclean.report.text import print_curves, print_evaluation, print_worst

    result = results.evaluate_run(config)
    if plots is not None:
        from rayclean.report.plots import draw

        for path in draw(result, plots):
            err.print(f"drew {path}", markup=False)
    if as_json:
        print_json(result.to_json())
        return
    if worst:
        print_worst(out, folder, worst)
    print_evaluation(out, result)
    if curves:
        print_curves(out, result)


@app.command(cls=listing(Sections()))
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    graph: Annotated[bool, typer.Option("--graph", help="Print the jobs, what each reads, and what is there.")] = False,
) -> None:
    """Print rows, forwards, memory, disk and time before anything starts."""
    loaded = load_config(config, overrides or [])
    if graph:
        from rayclean.inspect.graph import draw_graph
        from rayclean.report.run_text import print_graph

        print_graph(out, *draw_graph(loaded))
        return
    from rayclean.inspect.plan_features import plan_run
    from rayclean.report.text import print_plan

    print_plan(out, plan_run(loaded))


@app.command(cls=listing(Sections()))
def doctor(config: ConfigPath, overrides: Overrides = None) -> None:
    """Check the shards and the cluster."""
    loaded = load_config(config, overrides or [])
    from rayclean.inspect.doctor import examine
    from rayclean.report.run_text import print_findings

    raise typer.Exit(2 if print_findings(out, examine(loaded)) else 0)


fields.register(app)
results.register(app)
converting.register(app)
starting.register(app)


def call() -> int:
    """Does what the command line says, and turns errors into an exit code."""
    raise_interrupts()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Lines()])
    for name in ("ray", "fsspec", "PIL", "faiss", "botocore", "aiobotocore", "s3fs", "gcsfs"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        code = app(standalone_mode=False)
    except RaycleanError as e:
        err.print(f"rayclean: {e}", style="red", markup=False)
        code = e.exit_code
    except OSError as e:
        if not is_full_disk(e) and e.filename is None:
            raise
        advice = "make room and" if is_full_disk(e) else "mend that and"
        err.print(f"rayclean: {e}; {advice} run the same command again", style="red", markup=False)
        code = 1
    except typer.TyperException as e:  # usage: what, and how it is meant
        e.show()  # type: ignore[attr-defined]
        code = e.exit_code
    except (KeyboardInterrupt, typer.Abort):  # the second where somebody is asked
        code = INTERRUPTED
    except SystemExit as e:
        if e.code != signal.SIGTERM:  # which Ray turns into this while it starts
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:  # which Typer returns for an interrupt in a command
        err.print(f"\ninterrupted; go on with: {shlex.join(['rayclean', *sys.argv[1:]])}", markup=False)
    return int(code or 0)


def main() -> None:
    """Entry point: leaves the process at once when the command has ended.

    Not by the interpreter's own way out: there the native threads of Ray and others race with their teardown, which
    once in some hundred runs aborts a process whose table is complete, and its exit code is then -6. Ray leaves its
    workers like this for the same reason (its pull request 18899).
    """
    code = call()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # the reader left, as `head` does
            stream.flush()
    os._exit(code)
