"""`rayclean learn`: a method on the result of a run; what it trained, and how well, is kept as one JSON file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from rayclean.catalog.columns_stage import ColumnsJob
from rayclean.catalog.stage import CatalogJob, EmbedShardsJob, find_sources, scan_settings
from rayclean.catalog.table import SHARDS_FILE, SOURCES_FILE, Catalog
from rayclean.cluster.progress import meter, watched
from rayclean.config import Config, DataSection
from rayclean.errors import InputError
from rayclean.learn.course import Course
from rayclean.learn.feature_material import FeatureMaterial
from rayclean.learn.material import ImageMaterial, Material
from rayclean.learn.methods import METHODS
from rayclean.learn.phase import Exam, Graded
from rayclean.learn.posterior import Judged
from rayclean.learn.removal import find_removal
from rayclean.learn.result import Result
from rayclean.learn.trial import Trial
from rayclean.run.before import look_before
from rayclean.run.failures import note_failures, noted_failures
from rayclean.run.ledger import do
from rayclean.run.record import STEPS, record
from rayclean.run.roles import Role
from rayclean.run.run import Run
from rayclean.run.site import opened
from rayclean.run.start import is_current, scanned, start
from rayclean.schema import Array
from rayclean.scores.influence_stage import verified_rows
from rayclean.storage.contents import read_table, write
from rayclean.storage.damage import mended
from rayclean.storage.executor import Executor, Trainer, TrainFunction
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.graph import Graph
from rayclean.storage.lease import hold
from rayclean.storage.published import Published
from rayclean.storage.resume import CHECKPOINTS
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.stage import is_trained

RESULTS = "learn"
DONE_FILE = "learned.json"
VERSION = 1


def learn(config: Config, method: str, console: Console, verbose: bool = False) -> Result:
    """Trains with the result of a run, or goes on with it.

    Args:
        config: of the run's last start, with the fields of `learn` replaced.
        method: a name in METHODS.
        console: where progress is shown.
        verbose: let Ray speak.

    Raises:
        RaycleanError: see `rayclean.errors`.
    """
    METHODS.get(method)  # what is wrong is said before anything starts
    sources, place = look_before(config), Store(config.run.dir)
    place.check()
    with hold(place) as store, opened(config, store, verbose) as site:

        def work() -> Result:
            this = start(config, store, sources, site.workers, site.precision_of, leaves_word=False)
            if not store.exists(f"{this.catalog.folder}/{SHARDS_FILE}"):
                message = f"{store.root} has no catalog of these shards yet; give its `rayclean run` command first"
                raise InputError(message)
            return learn_by(this, method, site.executor, console)

        return mended(store, work)


def learn_by(this: Run, method: str, executor: Executor, console: Console) -> Result:
    """Does a method on a run that has begun, by whatever computes."""
    course = _course(this, executor, console)
    trials: list[Trial] = METHODS.get(method).load()(course)
    removals = {t.name: find_removal(this, t.lesson) for t in trials if t.lesson}
    fields = {"learn": this.config.learn.model_dump(), "train": this.config.train.model_dump()}
    mark = fingerprint(method, VERSION, fields, [t.folder for t in trials])
    result = Result(method, f"{RESULTS}/{method}-{mark}.json", trials, removals)
    write(this.store, result.file, result.to_json())
    return result


def _course(this: Run, executor: Executor, console: Console) -> Course:
    config = this.config

    def compute(jobs: Sequence[Job]) -> None:
        graph = Graph()
        graph.want(*jobs)
        do(executor, lambda: graph, console, this.store)

    verified = config.validation_data()
    known = (
        this.derived.get("held_out") if verified is None else _scanned(this, verified, "influence.validation", compute)
    )
    known_rows = np.empty(0, np.int64) if known is None else verified_rows(known, config.influence, config.run.seed)
    material = _material(this, compute)
    return Course(
        config=config,
        store=this.store,
        catalog=this.catalog,
        material=material,
        known=known,
        known_rows=known_rows,
        test=_exam(this, material, known, known_rows, compute),
        verified=this.verified,
        roles={name: role.last for name, role in this.roles.items() if _is_usable(this, name, role)},
        workers=this.workers,
        precision=this.precision,
        train_phase=lambda phase, function: _train(this, phase, function, executor.train, console),
        compute=compute,
        judged=lambda: _judged(this),
    )


def _judged(this: Run) -> Judged:
    """What the run has fitted to its rows.

    Raises:
        InputError: there is no complete table, or it is that of another config.
    """
    table = Published.open(this.store)
    if not is_current(this, table):
        raise table.older()
    return Judged(table.merge, this.score_files())


def _material(this: Run, compute: Callable[[Sequence[Job]], None]) -> Material:
    shared = this.config, this.catalog, this.workers, this.precision
    if not this.config.on_features:
        return ImageMaterial(*shared)
    compute([this.space])  # a finished run need not have kept it
    return FeatureMaterial(*shared, this.space)


def _is_usable(this: Run, name: str, role: Role) -> bool:
    return name not in this.planted and is_trained(role.task)


def _scanned(this: Run, data: DataSection, field: str, compute: Callable[[Sequence[Job]], None]) -> Catalog:
    """The catalog of shards that are not the run's own, made now where it is not there."""
    catalog = scanned(this.store, data, this.source_classes, find_sources(data, field), features=this.features)
    num_shards = read_table(this.store, f"{catalog.folder}/{SOURCES_FILE}", ["name"]).num_rows
    settings, kind = (
        scan_settings(data, this.source_classes),
        EmbedShardsJob if this.config.model.frozen else CatalogJob,
    )
    scan = kind(this.store, catalog.folder, settings, num_shards, this.features, this.features is not None)
    compute([ColumnsJob(this.store, catalog.folder, this.source_classes.names, after=(scan,))])
    return catalog


def _exam(
    this: Run, material: Material, known: Catalog | None, known_rows: Array, compute: Callable[[Sequence[Job]], None]
) -> Exam | None:
    """The test samples, cataloged now where they are not; without those that are verified ones."""
    data = this.config.test_data()
    if data is None:
        return None
    catalog = _scanned(this, data, "learn.test", compute)
    if not catalog.num_rows:
        raise InputError(f"learn.test: {this.config.learn.test} holds no usable sample; check learn.test_label")
    rows = np.arange(catalog.num_rows)
    if known is not None and known.fingerprint == catalog.fingerprint:
        rows = np.setdiff1d(rows, known_rows)
    return material.exam("test", catalog, rows)


def _train(this: Run, phase: Graded, function: TrainFunction, train: Trainer, console: Console) -> None:
    """Does a phase, unless it is done; its checkpoints go when it is."""
    done, store, started_s = f"{phase.folder}/{DONE_FILE}", this.store, time.monotonic()
    if store.exists(done):
        return
    name = f"learn: {phase.name}"
    with noted_failures(store, RESULTS, phase.name), meter(name, phase.stop, console) as progress:
        num_rows = this.catalog.num_rows
        with watched(progress, lambda: len(store.list(f"{phase.folder}/accuracy")), num_rows, phase.stop):
            train(function, phase, store, phase.folder)
    note_failures(store, RESULTS, {})
    write(store, done, {"name": phase.name, "epochs": phase.stop})
    store.remove(f"{phase.folder}/{CHECKPOINTS}")
    record(this.store, STEPS, {"step": RESULTS, "phase": phase.name, "wall_s": time.monotonic() - started_s})
