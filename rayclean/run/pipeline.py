"""The path of the data, stage by stage: what `rayclean run` does, what it continues, what `status` lists.

Read `STAGES` first. A stage gives the jobs of one step from what the steps before have published; the units of
all its jobs go to one pool of actors together, and those that have a file already are skipped.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console

from rayclean.catalog.stage import find_sources
from rayclean.cluster import nodes, pool
from rayclean.cluster.connect import connect
from rayclean.cluster.progress import meter
from rayclean.config import MAIN, Config, dump_config
from rayclean.errors import ConfigError, DamagedFile, InputError, StageError
from rayclean.merge.publish import publish_labels
from rayclean.run import steps
from rayclean.run.failures import note_failures, noted_failures
from rayclean.run.record import STEPS, record
from rayclean.run.run import Run
from rayclean.run.start import start
from rayclean.storage.damage import DamageFound, mended
from rayclean.storage.lease import hold
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.stage import is_trained, lost_epochs, train_role

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Stage:
    """One step of the path.

    Attributes:
        name: for people and `--until`; several steps may share one.
        jobs: what is computed; None for training, which is Ray Train's.
    """

    name: str
    jobs: Callable[[Run], Sequence[Job]] | None


def _further_round(index: int) -> tuple[Stage, ...]:
    return (
        Stage("decide", lambda run: steps.decide_jobs(run, index, 0)),
        Stage("decide", lambda run: steps.decide_jobs(run, index, 1)),
        Stage("pairs", lambda run: steps.pairs_jobs(run, index)),
        Stage("paths", lambda run: steps.paths_jobs(run, index)),
        Stage("interpolate", lambda run: steps.interpolate_jobs(run, index)),
    )


STAGES = (
    Stage("catalog", steps.scan_jobs),
    Stage("catalog", steps.source_jobs),
    Stage("catalog", steps.plan_jobs),  # nothing where the labels are the shards' own, and for all rows
    Stage("catalog", steps.derive_jobs),
    Stage("catalog", steps.columns_jobs),
    Stage("catalog", steps.plant_jobs),
    Stage("catalog", steps.planted_columns_jobs),
    Stage("train", None),
    Stage("embed", steps.embed_jobs),
    Stage("neighbors", steps.quantizer_jobs),  # no units where all searches are flat
    Stage("neighbors", lambda run: [*steps.index_jobs(run), *steps.family_jobs(run, 0)]),
    Stage("neighbors", steps.probes_jobs),  # likewise
    Stage("neighbors", steps.list_jobs),
    Stage("pairs", lambda run: steps.pairs_jobs(run, 0)),
    # The families side by side: units of whatever family go to one pool together.
    Stage("paths", lambda run: [*steps.paths_jobs(run, 0), *steps.family_jobs(run, 1)]),
    Stage("interpolate", lambda run: [*steps.interpolate_jobs(run, 0), *steps.family_jobs(run, 2)]),
    *_further_round(1),  # rows that are undecided walk on to further neighbours; nothing without `rounds`
    *_further_round(2),
    Stage("merge", lambda run: steps.merge_jobs(run, 0)),
    Stage("merge", lambda run: steps.merge_jobs(run, 1)),
)
STAGE_NAMES = tuple(dict.fromkeys(stage.name for stage in STAGES))


def run(
    config: Config, until: str | None, console: Console, verbose: bool = False
) -> tuple[Run, dict[str, Any] | None]:
    """Does a whole run, or continues it.

    Args:
        config: the run.
        until: the last stage to do; None for all.
        console: where progress is shown.
        verbose: let Ray speak.

    Returns:
        The run and the summary of its table, None where `until` stopped earlier.

    Raises:
        RaycleanError: see `rayclean.errors`; `exit_code` says what the command returns.
    """
    if until is not None and until not in STAGE_NAMES:
        raise ConfigError(f"--until {until}: no such stage; stages: {', '.join(STAGE_NAMES)}")
    config.merge_score()
    sources = find_sources(config.data)  # what cannot be read fails before anything starts
    place = Store(config.run.dir)
    place.check()
    with hold(place) as store, connect(verbose):
        nodes.check_nodes(store)

        def work() -> tuple[Run, dict[str, Any] | None]:
            this = start(config, store, sources)
            _save_config(this)
            last = len(STAGES) - 1 if until is None else max(i for i, s in enumerate(STAGES) if s.name == until)
            for stage in STAGES[: last + 1]:
                do(stage, this, console)
            if last < len(STAGES) - 1:
                return this, None
            summary = publish(this, store.number)
            tidy(this)
            return this, summary

        return mended(store, work)


def publish(this: Run, lease: int = 0) -> dict[str, Any]:
    """Makes `labels/` the run's result; returns its summary."""
    clips, names = this.merge_clips(), list(this.classes.names)
    return publish_labels(this.merge()[1], names, None if clips is None else clips[1], lease)


def tidy(this: Run) -> None:
    """Removes what no later stage reads, unless `run.keep` is `all`.

    Stay: snapshots, trajectories, scores, beliefs, the last snapshots' embeddings. A later start with another
    merge needs no more; one with other neighbours computes them again.
    """
    if this.config.run.keep == "all":
        return
    kept = {job.folder for job in (this.main.embed(this.main.last), *this.others.values())}
    voted = [this.main.embed(snapshot) for snapshot in this.voted]
    removed = {job.folder for job in voted} | {this.lists_folder(job, this.config.neighbors.vote_num) for job in voted}
    for walk in this.walks:
        removed |= {this.lists_folder(walk.space, walk.num)}
        for each in walk.rounds:
            removed |= {this.pairs(each).folder, this.paths(each).folder}
        for each in walk.rounds[:-1]:
            removed |= {this.interpolate(each).folder, this.between_rounds(each)[1].folder}
        removed |= {walk.space.folder, this.main.embed(walk.snapshot).folder}
    for solve, *_ in this.influences().values():
        removed |= {rows.folder for rows in (solve.embedding, solve.verified and solve.verified.embedding) if rows}
    for folder in removed - kept:
        this.store.remove(folder)


def _save_config(this: Run) -> None:
    text = yaml.safe_dump(dump_config(this.config), sort_keys=False)
    this.store.publish(CONFIG_FILE, text.encode())


def do(stage: Stage, this: Run, console: Console) -> None:
    """Computes what is missing of a stage, records it, and stops the run where units failed."""
    if stage.jobs is None:
        _check_rows(this)
        _train(this, console)
        return
    started_s = time.monotonic()
    jobs = stage.jobs(this)
    todo = [job.missing() for job in jobs]
    if not any(todo):
        note_failures(this.store, stage.name, {})
        return
    total, name = sum(len(units) for units in todo), _name(this)
    with noted_failures(this.store, stage.name, stage.name), meter(stage.name, total, console, name) as progress:
        reports = pool.run_units(jobs, todo, this.workers[jobs[0].pool], this.config.run.mix_environments, progress)
    each = list(zip(jobs, reports, strict=True))
    if damaged := [DamagedFile(*found) for report in reports for found in report.damaged.items()]:
        raise DamageFound(damaged)
    failed = {job.file(unit): error for job, report in each for unit, error in report.failed.items()}
    note_failures(this.store, stage.name, failed)
    record(this.store, STEPS, {"step": stage.name, "wall_s": time.monotonic() - started_s, **_driver_memory()})
    for job, report in each:
        facts = {
            "step": stage.name,
            "units": report.units,
            "rows": report.rows,
            "busy_s": report.busy_s,
            "peak_rss_bytes": report.peak_rss_bytes,
            "facts": report.facts,
        }
        if report.units:
            record(this.store, job.folder, facts)
    if failed:
        raise _failure(stage.name, failed)


def _check_rows(this: Run) -> None:
    summary = this.catalog.summary
    if not summary["rows"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(summary["quarantined"].items())) or "none"
        raise InputError(
            f"{this.config.data.shards} hold no usable sample ({summary['samples']} samples, quarantined: {reasons}); "
            "check data.image, data.label and data.classes"
        )
    if this.verified is not None and not all(is_trained(role.task) for role in this.roles.values()):
        this.verified.find(this.catalog)  # what fits no row is said before the training, not after it


def _train(this: Run, console: Console) -> None:
    for name, role in this.roles.items():
        if is_trained(role.task) and not lost_epochs(role.task):
            continue
        started_s = time.monotonic()
        title = "train" if name == MAIN else f"train {name}"
        epochs = max(role.task.train.epochs, 1)
        with noted_failures(this.store, "train", name), meter(title, epochs, console, _name(this)) as progress:
            train_role(role.task, this.workers["train"], progress)
        record(
            this.store,
            STEPS,
            {"step": "train", "role": name, "wall_s": time.monotonic() - started_s, **_driver_memory()},
        )
    note_failures(this.store, "train", {})


def _name(this: Run) -> str:
    """What the run is called where its metrics are shown."""
    return this.store.root.rpartition("/")[2]


def _driver_memory() -> dict[str, int]:
    return {"driver_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _failure(stage: str, failed: dict[str, str]) -> Exception:
    unreadable = [error for error in failed.values() if error.startswith("InputError: ")]
    if unreadable:
        return InputError(unreadable[0].removeprefix("InputError: "))
    shown = "; ".join(f"{unit}: {error}" for unit, error in list(failed.items())[:3])
    return StageError(
        f"{len(failed)} unit(s) of {stage} failed ({shown}); all others are done: mend the cause and run the "
        "same command again"
    )
