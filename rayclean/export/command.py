"""`rayclean export`: which rows stay is settled once, then a kind writes its files, then their card."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from rayclean.config import Config
from rayclean.config.secrets import refuse_secrets
from rayclean.errors import ConfigError
from rayclean.export.card import README, Card, readme
from rayclean.export.choose import COLUMNS, Lines, settle
from rayclean.export.cleanlab import pred_probs
from rayclean.export.croissant import CROISSANT, describe
from rayclean.export.cut import caution_of
from rayclean.export.kinds import EXPORT_KINDS
from rayclean.export.options import ExportOptions
from rayclean.export.rows import Chosen
from rayclean.export.table import LabelTable
from rayclean.export.wording import in_words
from rayclean.export.work import Made, Work
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL
from rayclean.run.ledger import do
from rayclean.run.run import Run
from rayclean.run.site import opened
from rayclean.run.start import is_current, look
from rayclean.storage.contents import read_json, write
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.graph import Graph
from rayclean.storage.lease import hold
from rayclean.storage.store import Store
from rayclean.storage.units import Job

VERSION = 1
MARK = "_export.json"  # says whose the output folder is, and, written once more at the end, what is in it
log = logging.getLogger(__name__)


def export(
    config: Config, to: str, out: str, options: ExportOptions, console: Console, verbose: bool = False
) -> dict[str, Any]:
    """Writes the rows of a finished run in the form of another tool; the same command continues what was stopped.

    Args:
        config: the run.
        to: a name in `rayclean.export.kinds.EXPORT_KINDS`.
        out: folder or URL: new, empty, or of the same export.
        options: which rows, with which labels.
        console: where progress is shown.
        verbose: let Ray speak.

    Returns:
        The summary, as plain values: `to`, `rows` of the table, `exported` ones, `reasons` (how many rows have each),
        `right` (the smallest probability with which a row stays), `files`, `notes`, and what the kind adds.

    Raises:
        ConfigError: options that contradict each other, or an output folder that holds something else.
        InputError: the run has no complete table.
        StageError: units failed; the same command goes on.
    """
    kind = EXPORT_KINDS.get(to)
    kind.check(options, config.data.has_images)
    store = Store(config.run.dir)
    this, table, target = look(config, store), LabelTable.open(store), _open(out)
    caution = caution_of(table.published.summary())
    rule = settle(options, config.merge.threshold, lambda: map(Lines.of, table.batches(COLUMNS)), caution)
    chosen = Chosen(this.catalog, this.source, table, rule, options.removed)
    chosen.check()
    if not is_current(this, table.published):
        log.warning("%s", table.published.older())
    fields = {"to": to, "options": options.to_json(), "cut": [rule.cut.key, rule.cut.last_row], "out": target.root}
    fields |= {} if kind.version == 1 else {"version": kind.version}  # exports of before are gone on with
    mark = fingerprint("export", VERSION, fields, [table.digest, this.catalog.mark])
    _claim(target, to, mark)
    work = Work(
        chosen=chosen,
        options=options,
        data=config.data,
        source=this.source_classes,
        out=target,
        folder=f"export-{mark}",
        compute=lambda job: compute_units(job, config, target, console, verbose),
        beliefs=lambda: _beliefs(this, table),
    )
    made: Made = kind.load()(work)
    _publish_card(work, made, to, in_words(options, rule))
    summary = {
        "to": to,
        "rows": table.num_rows,
        "exported": made.exported,
        "reasons": made.reasons,
        "right": rule.cut.right,
        "files": len(made.files),
        **made.facts,
        "notes": made.notes,
    }
    write(target, MARK, {"to": to, "fingerprint": mark, "summary": summary})
    return summary


def _publish_card(work: Work, made: Made, to: str, words: str) -> None:
    """`README.md` and `croissant.json`."""
    name, table = work.out.root.rpartition("/")[2] or to, work.chosen.table
    card = Card(
        name=name,
        kind=to,
        rows=made.exported,
        chosen=words,
        reasons=made.reasons,
        names=table.names,
        merge=table.merge,
        notes=made.notes,
        data_files=made.data_files,
        columns=made.columns,
    )
    work.out.publish(README, readme(card))
    description = f"{made.exported:,} rows, exported by rayclean as {to}. {words}"
    work.out.publish(CROISSANT, describe(name, description, made.files, made.records))


def compute_units(job: Job, config: Config, out: Store, console: Console, verbose: bool) -> None:
    """Does the missing units of a job on the cluster; nothing starts where there is none.

    Raises:
        RunHeldError: a driver is at work on the run.
        StageError: units failed.
    """
    if not job.missing():
        return
    graph = Graph()
    graph.want(job)
    # What is copied depends on no library's arithmetic, so that any environment may go on.
    with hold(job.store) as store, opened(config, store, verbose, mixes=True) as site:
        with _said_of_out():
            site.check(out)
        do(site.executor, lambda: graph, console, store)


def _beliefs(this: Run, table: LabelTable) -> bytes:
    """What the networks believe of each row, as the merge took it.

    Raises:
        InputError: the run's scores are not those of the table.
    """
    if not is_current(this, table.published):
        raise table.published.older()
    fitted = Fitted.from_json(read_json(this.store, f"{table.merge}/{MODEL}.json"))
    return pred_probs(this.score_files(), fitted.sources)


def _open(out: str) -> Store:
    refuse_secrets(out, "--out")
    with _said_of_out():
        target = Store(out)
        target.check()
    return target


@contextmanager
def _said_of_out() -> Iterator[None]:
    """Errors of a store that is not the run's."""
    try:
        yield
    except ConfigError as e:
        raise ConfigError(str(e).replace("run.dir", "--out", 1)) from e


def _claim(target: Store, to: str, mark: str) -> None:
    """Makes the output folder this export's.

    Raises:
        ConfigError: it holds something else.
    """
    if target.exists(MARK):
        found = read_json(target, MARK)
        if found.get("fingerprint") != mark:
            raise ConfigError(
                f"--out {target.root} holds another export (--to {found.get('to')}, other options, or of an earlier "
                "table); choose another folder, or remove this one"
            )
        return
    if others := target.list(""):
        raise ConfigError(f"--out {target.root} is not empty (it holds {others[0]}); choose a new folder")
    write(target, MARK, {"to": to, "fingerprint": mark})
