"""`rayclean run`: what it does from a config to the table, and what it continues.

What is computed, and in which order, follows from the graph of jobs: read `grow.py`.
"""

from __future__ import annotations

import logging
from typing import Any

import yaml
from rich.console import Console

from rayclean.catalog.labels import one_based_hint
from rayclean.catalog.stage import ONE_BASED
from rayclean.catalog.table import STRAYS, counted
from rayclean.config import Config, dump_config
from rayclean.errors import ConfigError, InputError
from rayclean.merge.publish import publish_labels
from rayclean.run.before import look_before
from rayclean.run.grow import grow, stages
from rayclean.run.ledger import do
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.site import opened
from rayclean.run.start import start
from rayclean.run.tidy import tidy
from rayclean.storage.amounts import size
from rayclean.storage.damage import mended
from rayclean.storage.executor import Executor
from rayclean.storage.graph import Graph
from rayclean.storage.lease import hold
from rayclean.storage.store import Store
from rayclean.train.stage import TrainJob

log = logging.getLogger(__name__)


def run(
    config: Config, until: str | None, console: Console, verbose: bool = False
) -> tuple[Run, dict[str, Any] | None]:
    """Does a whole run, or continues it.

    Args:
        config: the run.
        until: the last stage to do, with all that it reads; None for all.
        console: where progress is shown.
        verbose: let Ray speak.

    Returns:
        The run and the summary of its table, None where `until` stopped earlier.

    Raises:
        RaycleanError: see `rayclean.errors`; `exit_code` says what the command returns.
    """
    if until is not None and until not in stages():
        raise ConfigError(f"--until {until}: no such stage; stages: {', '.join(stages())}")
    log.info("run %s: looking for its shards", config.run.dir)
    sources = look_before(config)
    log.info("shards: %s, %s", f"{sources.num_rows:,}", size(sum(sources["size"].to_pylist())))
    place = Store(config.run.dir)
    place.check()
    with hold(place) as store, opened(config, store, verbose) as site:

        def work() -> tuple[Run, dict[str, Any] | None]:
            this = start(config, store, sources, site.workers, site.precision_of)
            _save_config(this)
            compute(this, site.executor, console, until)
            if until not in (None, stages()[-1]):
                return this, None
            summary = publish(this, store.number)
            tidy(this)
            return this, summary | {STRAYS: this.source.summary.get(STRAYS)}

        return mended(store, work)


def compute(this: Run, executor: Executor, console: Console, until: str | None = None) -> None:
    """Computes what is missing of a run, up to a stage or all of it."""
    said = False

    def grown() -> Graph:
        nonlocal said
        graph = grow(this)
        said = _check_rows(this, graph, said)
        return graph if until is None else graph.up_to(until)

    do(executor, grown, console, this.store)


def publish(this: Run, lease: int = 0) -> dict[str, Any]:
    """Makes `labels/` the run's result; returns its summary."""
    clips, names = this.merge_clips(), list(this.classes.names)
    return publish_labels(this.merge()[1], names, None if clips is None else clips[1], lease)


def _save_config(this: Run) -> None:
    text = yaml.safe_dump(dump_config(this.config), sort_keys=False)
    this.store.publish(CONFIG_FILE, text.encode())


def _check_rows(this: Run, graph: Graph, said: bool) -> bool:
    """What fits no row, or that there is none, is said before the training; returns whether it has been said."""
    trainings = [job for job in graph.jobs.values() if isinstance(job, TrainJob)]
    if not trainings:
        return said
    summary = this.catalog.summary
    if not summary["rows"]:
        strays = summary.get(STRAYS)
        found = f"{summary['samples']} samples, quarantined: {counted(summary['quarantined'])}"
        found += f"; files of no sample: {counted(strays)}" if strays else ""
        raise InputError(
            f"{this.config.data.shards} hold no usable sample ({found}); check "
            f"{'data.features' if this.config.data.features else 'data.image'}, data.label (where classes are folders: "
            "data.label: folder) and data.classes"
        )
    if this.verified is not None and any(job.missing() for job in trainings):
        this.verified.find(this.catalog)
    if not said and ONE_BASED in summary:
        log.warning(one_based_hint(this.source_classes.num_classes, this.config.data.label_offset))
    return True
