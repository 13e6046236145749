"""The path of the data, stage by stage: what `rayclean run` does, what it continues, what `status` lists.

Read `STAGES` first. A stage gives the jobs of one step from what the steps before have published; the units of
all its jobs go to one pool of actors together, and those that have a file already are skipped.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from rayclean import cluster, pool
from rayclean.catalog.derive_stage import Derivation, DeriveJob, PlanJob
from rayclean.catalog.stage import (
    SOURCES_FILE,
    CatalogJob,
    ColumnsJob,
    find_sources,
    scan_settings,
)
from rayclean.catalog.table import Catalog
from rayclean.config import MAIN, Config, DataSection, dump_config
from rayclean.embed.stage import EmbedJob
from rayclean.embed.table import Embedding
from rayclean.errors import ConfigError, InputError, StageError
from rayclean.merge.publish import publish_labels
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob
from rayclean.progress import meter
from rayclean.run import Run, look, start
from rayclean.storage.contents import encode, read_json, read_table
from rayclean.storage.lease import hold
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.loop import TrainTask
from rayclean.train.stage import is_trained, train_role

log = logging.getLogger(__name__)
CONFIG_FILE = "config.yaml"
RECENT_UNITS = 200
STEPS = "steps"


def _scanned(run: Run) -> list[tuple[Catalog, DataSection]]:
    """The catalogs that are read from shards: the data's, and the verified samples' where these have their own."""
    verified = run.config.validation_data()
    found = [(run.source, run.config.data)]
    return [*found, (run.validation, verified)] if run.validation and verified else found


def _scan_jobs(run: Run) -> list[Job]:
    jobs: list[Job] = []
    for catalog, data in _scanned(run):
        sources = read_table(run.store, f"{catalog.folder}/{SOURCES_FILE}", ["name"])
        settings = scan_settings(data, run.source_classes)
        jobs.append(CatalogJob(run.store, catalog.folder, settings, sources.num_rows))
    return jobs


def _source_jobs(run: Run) -> list[Job]:
    return [ColumnsJob(run.store, catalog.folder, run.source_classes.num_classes) for catalog, _ in _scanned(run)]


def _plan_jobs(run: Run) -> list[Job]:
    return [PlanJob(*_derivation_inputs(run, keeps, catalog)) for keeps, catalog in run.derived.items()]


def _derive_jobs(run: Run) -> list[Job]:
    return [DeriveJob(*_derivation_inputs(run, keeps, catalog)) for keeps, catalog in run.derived.items()]


def _columns_jobs(run: Run) -> list[Job]:
    return [ColumnsJob(run.store, catalog.folder, run.classes.num_classes) for catalog in run.derived.values()]


def _derivation_inputs(run: Run, keeps: str, catalog: Catalog) -> tuple[Store, str, Catalog, Derivation]:
    return run.store, catalog.folder, run.source, run.derivation(keeps)


def _embed_jobs(run: Run) -> list[Job]:
    return [*run.trajectory_jobs().values(), *run.embeds()]


def _family_jobs(run: Run, step: int) -> list[Job]:
    """A step of influence (solve, one pass, fit) and of the simulated loss (threshold, one pass), where wanted."""
    families: list[tuple[Job, ...]] = [family for family in (run.influence(), run.simulate()) if family is not None]
    return [family[step] for family in families if step < len(family)]


def _quantizer_jobs(run: Run) -> list[Job]:
    return [QuantizerJob(*_index_inputs(run, *search)) for search in _searches(run)]


def _index_jobs(run: Run) -> list[Job]:
    return [IndexJob(*_index_inputs(run, *search)) for search in _searches(run)]


def _probes_jobs(run: Run) -> list[Job]:
    return [
        ProbesJob(run.store, run.lists_folder(space, num), run.catalog, run.index_settings(space), num)
        for space, num in _searches(run)
    ]


def _list_jobs(run: Run) -> list[Job]:
    same = {(walk.space, walk.num): None for walk in run.open_walks if not walk.any_label}
    any_label = {(walk.space, walk.num): None for walk in run.open_walks if walk.any_label}
    any_label |= dict.fromkeys(_evidence(run))
    return [
        *(SameLabelJob(*_list_inputs(run, *search)) for search in same),
        *(AnyLabelJob(*_list_inputs(run, *search)) for search in any_label),
    ]


def _interpolate_jobs(run: Run) -> list[Job]:
    return [run.interpolate(walk) for walk in run.walks]


def _distinct(jobs: Iterable[Job]) -> list[Job]:
    """Jobs of different folders: two walks may share a job."""
    return list({job.folder: job for job in jobs}.values())


def _index_inputs(run: Run, space: EmbedJob, num: int) -> tuple[Store, str, Catalog, Embedding, IndexSettings]:
    return run.store, run.lists_folder(space, num), run.catalog, space.embedding, run.index_settings(space)


def _list_inputs(run: Run, space: EmbedJob, num: int) -> tuple[Store, str, Catalog, IndexSettings, int, int]:
    folder, settings = run.lists_folder(space, num), run.index_settings(space)
    return run.store, folder, run.catalog, settings, num, run.config.blocks.rows


def _evidence(run: Run) -> list[tuple[EmbedJob, int]]:
    """The search for the table's evidence, while it is missing."""
    return [(run.main.embed(run.main.last), run.config.iofm.num)] if run.wants_evidence else []


def _searches(run: Run) -> list[tuple[EmbedJob, int]]:
    """Spaces that need an index, with the length of their lists: those of open walks, and of the evidence."""
    return list(dict.fromkeys([*((walk.space, walk.num) for walk in run.open_walks), *_evidence(run)]))


@dataclass(frozen=True)
class Stage:
    """One step of the path.

    Attributes:
        name: for people and `--until`; several steps may share one.
        jobs: what is computed; None for training, which is Ray Train's.
    """

    name: str
    jobs: Callable[[Run], Sequence[Job]] | None


STAGES = (
    Stage("catalog", _scan_jobs),
    Stage("catalog", _source_jobs),
    Stage("catalog", _plan_jobs),  # nothing where the labels are the shards' own, and for all rows
    Stage("catalog", _derive_jobs),
    Stage("catalog", _columns_jobs),
    Stage("train", None),
    Stage("embed", _embed_jobs),
    Stage("neighbors", _quantizer_jobs),  # no units where all searches are flat
    Stage("neighbors", lambda run: [*_index_jobs(run), *_family_jobs(run, 0)]),
    Stage("neighbors", _probes_jobs),  # likewise
    Stage("neighbors", _list_jobs),
    Stage("pairs", lambda run: _distinct(run.pairs(walk) for walk in run.open_walks)),
    # The families side by side: units of whatever family go to one pool together.
    Stage("paths", lambda run: [*(run.paths(walk) for walk in run.open_walks), *_family_jobs(run, 1)]),
    Stage("interpolate", lambda run: [run.vote(), *_interpolate_jobs(run), *_family_jobs(run, 2)]),
    Stage("merge", lambda run: [run.merge()[0]]),
    Stage("merge", lambda run: [run.merge()[1]]),
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
    store = Store(config.run.dir)
    with hold(store), cluster.connect(verbose):
        cluster.check_nodes(store)
        this = start(config, store, sources)
        _save_config(this)
        last = len(STAGES) - 1 if until is None else max(i for i, s in enumerate(STAGES) if s.name == until)
        for stage in STAGES[: last + 1]:
            _do(stage, this, console)
        if last < len(STAGES) - 1:
            return this, None
        summary = publish_labels(this.merge()[1], list(this.classes.names))
        tidy(this)
        return this, summary


def tidy(this: Run) -> None:
    """Removes what no later stage reads, unless `run.keep` is `all`.

    Stay: snapshots, trajectories, scores, beliefs, the last snapshot's embedding. A later start with another
    merge needs no more; one with other neighbours computes them again.
    """
    if this.config.run.keep == "all":
        return
    last = this.main.embed(this.main.last)
    removed = {this.lists_folder(last, this.config.iofm.num)}
    for walk in this.walks:
        removed |= {this.lists_folder(walk.space, walk.num), this.pairs(walk).folder, this.paths(walk).folder}
        removed |= {walk.space.folder, this.main.embed(walk.snapshot).folder}
    for folder in removed - {last.folder}:
        this.store.remove(folder)


def _save_config(this: Run) -> None:
    import yaml

    text = yaml.safe_dump(dump_config(this.config), sort_keys=False)
    this.store.publish(CONFIG_FILE, text.encode())


def _do(stage: Stage, this: Run, console: Console) -> None:
    """Computes what is missing of a stage, records it, and stops the run where units failed."""
    if stage.jobs is None:
        _check_rows(this)
        _train(this, console)
        return
    started_s = time.monotonic()
    jobs = stage.jobs(this)
    todo = [job.missing() for job in jobs]
    if not any(todo):
        return
    with meter(stage.name, sum(len(units) for units in todo), console) as progress:
        reports = pool.run_units(jobs, todo, this.workers[jobs[0].pool], this.config.run.mix_environments, progress)
    _record(this, STEPS, {"step": stage.name, "wall_s": time.monotonic() - started_s, **_driver_memory()})
    for job, report in zip(jobs, reports, strict=True):
        facts = {
            "step": stage.name,
            "units": report.units,
            "rows": report.rows,
            "busy_s": report.busy_s,
            "peak_rss_bytes": report.peak_rss_bytes,
            "facts": report.facts,
        }
        if report.units:
            _record(this, job.folder, facts)
    failed = {unit: error for report in reports for unit, error in report.failed.items()}
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


def _train(this: Run, console: Console) -> None:
    for name, role in this.roles.items():
        if is_trained(role.task):
            continue
        started_s = time.monotonic()
        title = "train" if name == MAIN else f"train {name}"
        with meter(title, max(role.task.train.epochs, 1), console) as progress:
            train_role(role.task, this.workers["train"], progress)
        _record(
            this, STEPS, {"step": "train", "role": name, "wall_s": time.monotonic() - started_s, **_driver_memory()}
        )


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


def _record(this: Run, name: str, facts: dict[str, Any]) -> None:
    """Adds one entry to the measured facts of a job, or of all steps; every start adds its own."""
    file = f"record/{name}.json"
    entries = read_json(this.store, file) if this.store.exists(file) else []
    this.store.publish(file, encode(file, [*entries, facts], "{}"))


@dataclass
class Progressing:
    """What `status` says of one stage."""

    stage: str
    done: int
    total: int
    units_per_s: float | None = None
    wall_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the stage at the rate of its last units."""
        return (self.total - self.done) / self.units_per_s if self.units_per_s else None


def status(config: Config) -> Iterator[Progressing]:
    """How far each stage is, from the files alone; stages after the first unfinished one are not known yet.

    Steps that share a stage's name share its time, which is the sum over all starts.
    """
    this = look(config, Store(config.run.dir))
    wall_s = _wall_times(this)
    for stage in STAGES:
        if stage.jobs is None:
            epochs = [_trained_epochs(role.task) for role in this.roles.values()]
            done, total = (sum(column) for column in zip(*epochs, strict=True))
            rate = None
        else:
            jobs = stage.jobs(this)
            total = sum(len(job.units()) for job in jobs)
            done = total - sum(len(job.missing()) for job in jobs)
            rate = _recent_rate(jobs) if 0 < done < total else None
        yield Progressing(stage.name, done, total, rate, wall_s.pop(stage.name, None))
        if done < total:
            return


def _trained_epochs(task: TrainTask) -> tuple[int, int]:
    """Epochs done, and epochs in all; a role that is not trained counts as one."""
    total = max(task.train.epochs, 1)
    seen = len(task.store.list(f"{task.folder}/trajectories"))
    return (total if is_trained(task) else min(seen, total - 1)), total


def _wall_times(this: Run) -> dict[str, float]:
    """Seconds that each stage took, over all starts of the run."""
    file = f"record/{STEPS}.json"
    times: dict[str, float] = {}
    for entry in read_json(this.store, file) if this.store.exists(file) else []:
        times[entry["step"]] = times.get(entry["step"], 0) + entry["wall_s"]
    return times


def _recent_rate(jobs: Sequence[Job]) -> float | None:
    """Units a second over the last ones that were published."""
    times = sorted(
        job.store.modified_s(job.file(unit)) for job in jobs for unit in set(job.units()) - set(job.missing())
    )[-RECENT_UNITS:]
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None
