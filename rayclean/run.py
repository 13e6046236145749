"""One start of a run: from the config to the jobs of each stage, as far as earlier stages have published."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from rayclean import cluster
from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import (
    SOURCES_FILE,
    catalog_fingerprint,
)
from rayclean.catalog.table import Catalog
from rayclean.config import Config
from rayclean.embed.stage import EmbedJob, embed_job
from rayclean.errors import InputError
from rayclean.merge.stage import ApplyJob, FitJob, merge_jobs
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.stage import neighbors_folder
from rayclean.schema import SCORES
from rayclean.scores.interpolate_stage import InterpolateJob, interpolate_job
from rayclean.scores.paths_stage import PairsJob, PathsJob, pairs_job, paths_job
from rayclean.scores.table import ScoreFiles
from rayclean.scores.trajectory_stage import trajectory_job
from rayclean.scores.vote_stage import vote_job
from rayclean.storage.contents import encode, read_json
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.forward import ForwardSettings
from rayclean.train.loop import TrainTask
from rayclean.train.precision import resolve_precision
from rayclean.train.snapshots import Snapshot
from rayclean.train.stage import Trained, find_trained, train_task

PRECISION_FILE = "precision.json"
CATALOG_FILE = "catalog.json"
log = logging.getLogger(__name__)


@dataclass
class Run:
    """One start of a run: its config, its files, and what is known once earlier stages are done."""

    config: Config
    store: Store
    catalog: Catalog
    workers: dict[str, cluster.Workers]
    precision: tuple[str, str]

    @cached_property
    def classes(self) -> ClassList:
        """The classes' names."""
        return ClassList.load(self.config.data.classes)

    @cached_property
    def task(self) -> TrainTask:
        """The training of role `main`."""
        return train_task(self.config, self.store, self.catalog, self.precision, self.workers["train"])

    @cached_property
    def trained(self) -> Trained:
        """The finished role `main`."""
        return find_trained(self.task)

    @cached_property
    def forward(self) -> ForwardSettings:
        """How networks are run when they score."""
        return ForwardSettings(self.workers["score"].device, self.precision[1], self.config.score.batch_size)

    @property
    def wants_paths(self) -> bool:
        """Whether any score needs paths."""
        return any(SCORES[name].family == "interpolation" for name in self.config.score_names())

    def path_snapshots(self) -> tuple[Snapshot, ...]:
        """Snapshots whose paths are walked: all for `iofm`, else the last one, else none."""
        if not self.wants_paths:
            return ()
        return self.trained.snapshots if "iofm" in self.config.score_names() else self.trained.snapshots[-1:]

    @cached_property
    def open_snapshots(self) -> tuple[Snapshot, ...]:
        """Snapshots whose paths are not scored yet: only they need lists, pairs and paths."""
        return tuple(snapshot for snapshot in self.path_snapshots() if self.interpolate(snapshot).missing())

    @property
    def wants_evidence(self) -> bool:
        """Whether the neighbours of the last snapshot are still to be found."""
        return bool(self.vote().missing())

    def embedded_snapshots(self) -> tuple[Snapshot, ...]:
        """Snapshots whose embedding is needed; the last one always, for beliefs and evidence."""
        last = self.trained.snapshots[-1]
        return tuple(dict.fromkeys((*self.open_snapshots, last)))

    def embed(self, snapshot: Snapshot) -> EmbedJob:
        """The embedding of a snapshot."""
        return embed_job(
            self.catalog,
            snapshot,
            self.trained.spec,
            self.forward,
            self.config.data.max_pixels,
            self.config.blocks.rows,
        )

    def index_settings(self, snapshot: Snapshot) -> IndexSettings:
        """How a snapshot's neighbours are searched; lists of any label are the last one's alone."""
        neighbors = self.config.neighbors
        return IndexSettings(
            pool=neighbors.pool,
            seed=self.config.run.seed,
            part_rows=self.config.blocks.index_rows,
            ivf_rows=neighbors.ivf_rows,
            recall_target=neighbors.recall_target,
            any_label=snapshot == self.trained.snapshots[-1],
            device=self.workers["score"].device,
        )

    def lists_folder(self, snapshot: Snapshot) -> str:
        """The folder of a snapshot's index and lists."""
        embedding, settings = self.embed(snapshot).embedding, self.index_settings(snapshot)
        return neighbors_folder(self.catalog, embedding, settings, self.config.iofm.num, self.config.blocks.rows)

    def pairs(self, snapshot: Snapshot) -> PairsJob:
        """The pairs of a snapshot."""
        blocks = self.config.blocks
        embedding = self.embed(snapshot).embedding
        return pairs_job(self.catalog, embedding, self.lists_folder(snapshot), blocks.index_rows, blocks.rows)

    def paths(self, snapshot: Snapshot) -> PathsJob:
        """The paths of a snapshot."""
        return paths_job(
            self.pairs(snapshot),
            snapshot,
            self.trained.spec,
            self.forward,
            self.config.data.max_pixels,
            self.config.iofm.steps,
            self.config.blocks.pairs,
        )

    def interpolate(self, snapshot: Snapshot) -> InterpolateJob:
        """The interpolation scores of a snapshot."""
        paths = self.paths(snapshot)
        return interpolate_job(self.catalog, paths.embedding, paths.folder, self.config.iofm.steps)

    def trajectory_jobs(self) -> list[Job]:
        """The trajectory scores; none without epochs."""
        trained = self.trained
        if not trained.epochs:
            return []
        rows = self.config.blocks.rows
        return [trajectory_job(self.catalog, trained.folder, trained.trajectories, trained.epochs, rows)]

    def vote(self) -> Job:
        """The vote at the last snapshot."""
        folder = self.lists_folder(self.trained.snapshots[-1])
        return vote_job(self.catalog, folder, self.config.blocks.rows)

    def score_files(self) -> ScoreFiles:
        """Where the scores lie."""
        trajectory = self.trajectory_jobs()
        return ScoreFiles(
            catalog=self.catalog,
            embedding=self.embed(self.trained.snapshots[-1]).embedding,
            names=self.config.score_names(),
            trajectory_folder=trajectory[0].folder if trajectory else None,
            interpolate_folders=tuple(self.interpolate(s).folder for s in self.path_snapshots()),
            vote_folder=self.vote().folder,
        )

    def merge(self) -> tuple[FitJob, ApplyJob]:
        """The fit and the application of the merge."""
        config = self.config
        return merge_jobs(
            self.score_files(),
            config.merge,
            config.merge_score(),
            config.iofm.num,
            config.blocks.table_rows,
            config.run.seed,
        )


def start(config: Config, store: Store, sources: pa.Table) -> Run:
    """A run on the cluster that is connected: pools sized, precision settled for its whole life.

    Args:
        config: the run.
        store: its files.
        sources: the shards as they are now.
    """
    resources = config.resources
    workers = {
        "catalog": cluster.settle(resources.catalog, runs_networks=False),
        "train": cluster.settle_training(resources.train, config.train.workers),
        "score": cluster.settle(resources.score, runs_networks=True),
        "merge": cluster.settle(resources.merge, runs_networks=False),
    }
    if "auto" in (config.train.precision, config.score.precision) and not store.exists(PRECISION_FILE):
        found = {
            name: cluster.call_on(workers[name], resolve_precision, "auto", workers[name].device)
            for name in ("train", "score")
        }
        store.create(PRECISION_FILE, encode(PRECISION_FILE, found, "{}"))
    mark = catalog_fingerprint(config.data, ClassList.load(config.data.classes), sources)
    catalog = Catalog(store, f"catalog-{mark}", mark)
    store.create(f"{catalog.folder}/{SOURCES_FILE}", encode(SOURCES_FILE, sources, "{}"))
    _note_catalog(store, catalog)
    return Run(config, store, catalog, workers, _settled_precision(config, store))


def _note_catalog(store: Store, catalog: Catalog) -> None:
    """Leaves word which catalog is the run's, and says so when the shards or how they are read have changed."""
    if store.exists(CATALOG_FILE):
        before = read_json(store, CATALOG_FILE)["fingerprint"]
        if before != catalog.fingerprint:
            log.warning("the shards, or how they are read, have changed: a new catalog beside catalog-%s", before)
    store.publish(CATALOG_FILE, encode(CATALOG_FILE, {"fingerprint": catalog.fingerprint}, "{}"))


def look(config: Config, store: Store) -> Run:
    """A run as its files show it, without a cluster and without its shards: for commands that only read.

    Raises:
        InputError: the run was never started.
    """
    if not store.exists(CATALOG_FILE):
        raise InputError(f"{store.root} holds no run that was started; use `rayclean run` first")
    mark = read_json(store, CATALOG_FILE)["fingerprint"]
    catalog = Catalog(store, f"catalog-{mark}", mark)
    idle = cluster.Workers(1, 1, 0, "cpu")
    workers = dict.fromkeys(("catalog", "train", "score", "merge"), idle)
    return Run(config, store, catalog, workers, _settled_precision(config, store))


def _settled_precision(config: Config, store: Store) -> tuple[str, str]:
    """Precision of training and of scoring; `auto` is what the run's first start found."""
    auto = read_json(store, PRECISION_FILE) if store.exists(PRECISION_FILE) else {}
    train, score = config.train.precision, config.score.precision
    return (
        auto.get("train", "float32") if train == "auto" else train,
        auto.get("score", "float32") if score == "auto" else score,
    )
