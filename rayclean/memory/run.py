"""A run on arrays in memory: the jobs of `rayclean run`, computed in this process, without files."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayclean.catalog.arrays import publish_features, publish_images
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config
from rayclean.decisions.verified import Verified
from rayclean.errors import ConfigError
from rayclean.memory.inputs import Given
from rayclean.memory.training import GoesOn, Training
from rayclean.merge.publish import summarise
from rayclean.run.grow import catalog_jobs, grow
from rayclean.run.run import Run
from rayclean.run.start import note_sources
from rayclean.schema import NO_LABEL, Array
from rayclean.scores.table import ScoreFiles
from rayclean.storage.contents import read_table
from rayclean.storage.executor import Inline, Trainer, train_here
from rayclean.storage.fingerprint import digest
from rayclean.storage.graph import Graph
from rayclean.storage.memory_store import MemoryStore
from rayclean.storage.units import num_blocks
from rayclean.train.heads import HeadSettings
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
    return _begun(config, store, catalog, validation, device)


def begin_features(
    config: Config,
    features: Array,
    labels: Array,
    keys: Sequence[str],
    groups: Sequence[str] | None,
    device: str,
    verified: Array,
    digests: Sequence[bytes] | None = None,
) -> Run:
    """A run on features whose catalog is made.

    Args:
        config: what is wanted.
        features: (N, d) float32.
        labels: (N,) from 0.
        keys: N names.
        groups: N names of what belongs together; None where rows stand alone.
        device: `cuda` or `cpu`.
        verified: (N,) labels that people have verified, `NO_LABEL` elsewhere, `DROPPED` where no class is right.
        digests: N times 16 bytes of what the samples show; by default of their features.
    """
    store = MemoryStore()
    catalog = publish_features(store, "given", features, labels, keys, groups, digests)
    run = _begun(config, store, catalog, None, device)
    if (verified != NO_LABEL).any():
        run.__dict__["verified"] = VerifiedArray(verified)  # of a run it is a file, or its review
    return run


def train_fields_of(heads: HeadSettings) -> dict[str, Any]:
    """The section `train` that heads learn so by."""
    mixes = heads.loss != "mixup" or heads.alpha > 0
    return {
        "weight_decays": list(heads.weight_decays),
        "folds": heads.folds,
        "epochs": heads.epochs,
        "batch_size": heads.batch_size,
        "loss": heads.loss if mixes else "ce",
        "head": heads.head,
        **({"mixup_alpha": heads.alpha} if heads.alpha > 0 else {}),
    }


@dataclass(frozen=True)
class VerifiedArray:
    """Labels that people have verified, by row.

    Attributes:
        labels: (N,), `NO_LABEL` where nobody has looked.
    """

    labels: Array

    @property
    def digest(self) -> str:
        """Digest of all of them."""
        return digest(np.ascontiguousarray(self.labels).tobytes())

    def find(self, catalog: Catalog) -> Verified:
        """Finds the rows that they are labels of."""
        rows = np.flatnonzero(self.labels != NO_LABEL)
        return Verified.make(rows, self.labels[rows].astype(np.int64))

    def num_elsewhere(self, found: Verified) -> int:
        """0: all samples are here."""
        return 0


def _begun(config: Config, store: MemoryStore, catalog: Catalog, validation: Catalog | None, device: str) -> Run:
    workers = dict.fromkeys(("cpu", "gpu", "train"), Workers(1, torch.get_num_threads(), 0, device))
    precision = resolve_precision(config.train.precision, device), resolve_precision(config.score.precision, device)
    run = Run(config, store, catalog, validation, workers, precision, flat=not _has_faiss())
    note_sources(run, read_table(store, f"{catalog.folder}/{SOURCES_FILE}"))
    graph = Graph()
    graph.want(*catalog_jobs(run))
    compute(lambda: graph)
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
    seconds = compute(lambda: grow(run), GoesOn(trained))
    files, (table, summary) = run.score_files(), merged(run)
    blocks = [files.read(block).scores for block in range(num_blocks(files.num_rows, files.block_rows))]
    scores = {name: np.concatenate([block[name] for block in blocks]) for name in files.names}
    _keep_epochs(run)
    files = replace(run.score_files(), catalog=replace(run.catalog))  # what was opened of them holds images
    return Scored(table, summary, scores, files, seconds)


def merged(run: Run) -> tuple[pa.Table, dict[str, Any]]:
    """The table of a run that is computed, and its summary without what is of shards."""
    _, apply = run.merge()
    table = pa.concat_tables([read_table(run.store, apply.file(unit)) for unit in apply.units()]).combine_chunks()
    summary, of_shards = summarise(apply, list(run.classes.names))[1], set(run.catalog.summary) - {"rows"}
    return table, {key: summary[key] for key in summary if key not in of_shards}


def compute(grow: Callable[[], Graph], train: Trainer = train_here) -> dict[str, float]:
    """Computes what is missing of a run in memory; returns the seconds of each stage."""
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
        store.remove(f"{role.trained.folder}/snapshots")
    if isinstance(store, MemoryStore):
        store.images.clear()
