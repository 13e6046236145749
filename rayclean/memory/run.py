"""A run on arrays in memory: the jobs of `rayclean run`, computed in this process, without files."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayclean.catalog.arrays import publish_images
from rayclean.catalog.stage import SOURCES_FILE
from rayclean.cluster.sizing import Workers
from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.memory.inputs import Given
from rayclean.memory.training import GoesOn, Training
from rayclean.merge.publish import summarise
from rayclean.run.grow import catalog_jobs, grow
from rayclean.run.run import Run
from rayclean.run.start import note_sources
from rayclean.schema import Array
from rayclean.scores.table import ScoreFiles
from rayclean.storage.contents import read_table
from rayclean.storage.executor import Inline, Trainer, train_here
from rayclean.storage.graph import Graph
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.units import num_blocks
from rayclean.train.precision import resolve_precision
from rayclean.train.spec import network_spec

FLAT_ROWS = 20_000  # from which on a flat search is slow enough to say so


@dataclass(frozen=True)
class Scored:
    """What a run in memory gives; it holds neither networks nor images.

    Attributes:
        table: the final table.
        summary: counts, and what is known of the noise rate.
        scores: (N,) float64 by name.
        files: where scores by epoch lie.
        seconds: that each stage took.
    """

    table: pa.Table
    summary: dict[str, Any]
    scores: dict[str, Array]
    files: ScoreFiles
    seconds: dict[str, float]

    def by_epoch(self, name: str) -> Iterator[tuple[int, Array]]:
        """A score as of each epoch that it was taken at, ascending."""
        for reader in self.files.readers:
            for epoch, scores in reader.courses(self.files.num_rows):
                if name in scores:
                    yield epoch, scores[name]


def begin(config: Config, given: Given, device: str, verified: Given | None = None) -> Run:
    """A run whose catalogs are made, also those with other labels.

    Args:
        config: what is wanted.
        given: the samples.
        device: `cuda` or `cpu`.
        verified: samples whose labels are right, for OSD.

    Raises:
        ConfigError: a role wants images of another size.
    """
    store, size = MemoryStore(), given.images.shape[1]
    for role in config.role_names():
        if (wanted := network_spec(config, len(given.classes), role).size) != size:
            raise ConfigError(f"role {role}: model.size is {wanted}, but images are {size} px; leave it out, or resize")
    catalog = publish_images(store, "given", given.images, given.labels, given.keys)
    validation = verified and publish_images(store, "verified", verified.images, verified.labels, verified.keys)
    workers = dict.fromkeys(("cpu", "gpu", "train"), Workers(1, torch.get_num_threads(), 0, device))
    precision = resolve_precision(config.train.precision, device), resolve_precision(config.score.precision, device)
    run = Run(config, store, catalog, validation, workers, precision, flat=not _has_faiss())
    note_sources(run, read_table(store, f"{catalog.folder}/{SOURCES_FILE}"))
    graph = Graph()
    graph.want(*catalog_jobs(run))
    _compute(lambda: graph, train_here)
    return run


def _has_faiss() -> bool:
    try:
        importlib.import_module("faiss")
    except ImportError:
        return False
    return True


def score(run: Run, trained: Mapping[str, Training]) -> Scored:
    """Trains, scores and merges.

    Args:
        run: of `begin`.
        trained: by role, what need not be trained again.

    Raises:
        RaycleanError: the first error of a job.
    """
    if run.flat and run.catalog.num_rows >= FLAT_ROWS:
        warnings.warn(
            f"{run.catalog.num_rows} rows without FAISS: neighbours are searched flat, which takes time of "
            "their square; pip install faiss-cpu",
            stacklevel=3,
        )
    seconds = _compute(lambda: grow(run), GoesOn(trained))
    files, (_, apply) = run.score_files(), run.merge()
    table = pa.concat_tables([read_table(run.store, apply.file(unit)) for unit in apply.units()]).combine_chunks()
    blocks = [files.read(block).scores for block in range(num_blocks(files.num_rows, files.block_rows))]
    scores = {name: np.concatenate([block[name] for block in blocks]) for name in files.names}
    summary, of_shards = summarise(apply, list(run.classes.names))[1], set(run.catalog.summary) - {"rows"}
    _keep_epochs(run)
    files = replace(run.score_files(), catalog=replace(run.catalog))  # what was opened of them holds images
    kept = {key: summary[key] for key in summary if key not in of_shards}
    return Scored(table, kept, scores, files, seconds)


def _compute(grow: Callable[[], Graph], train: Trainer) -> dict[str, float]:
    """Computes what is missing; returns the seconds of each stage."""
    seconds: dict[str, float] = {}
    for report in Inline(train=train, notes=False).run(grow):
        seconds[report.job.stage] = seconds.get(report.job.stage, 0.0) + report.busy_s
    return seconds


def _keep_epochs(run: Run) -> None:
    """Forgets all but what scores by epoch are read from: the catalog's columns, trajectories, the families' files."""
    store = run.store
    kept = {run.catalog.folder, *(role.task.folder for role in run.roles.values())}
    kept |= {job.folder for added in run.added.values() for job in added.jobs}
    for folder in store.list(""):
        if folder not in kept:
            store.remove(folder)
    for role in run.roles.values():
        store.remove(f"{role.task.folder}/snapshots")
    if isinstance(store, MemoryStore):
        store.images.clear()
