"""Training on Ray Train: one TorchTrainer per role, one checkpoint each epoch, one file when it is done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rayclean.catalog.features import StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.cluster.progress import watched
from rayclean.cluster.sizing import Workers
from rayclean.config import MAIN, Config, TrainSection
from rayclean.storage.contents import content_digest, create, read_json, write
from rayclean.storage.executor import Meter, Report, Trainer, TrainingJob
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks
from rayclean.train.forward import ForwardSettings
from rayclean.train.heads import HeadSettings
from rayclean.train.heads_worker import HeadsTask
from rayclean.train.loop import Rank
from rayclean.train.old_heads import find_old_heads
from rayclean.train.plan import role_seed
from rayclean.train.snapshots import Snapshot, find_snapshot
from rayclean.train.spec import network_spec
from rayclean.train.task import RoleTask, feed_settings, image_fields, train_fields
from rayclean.train.trajectories import trajectory_name
from rayclean.train.weights import weights_digest
from rayclean.train.worker import TrainTask

VERSION = 1
DONE_FILE = "trained.json"
WORKERS_FILE = "workers.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished role.

    Attributes:
        folder: of its snapshots and trajectories.
        epochs: epochs with trajectories.
        snapshots: all that are kept, in order of their epochs.
        trajectories: fingerprint over all trajectory files; empty without any.
    """

    folder: str
    epochs: int
    snapshots: tuple[Snapshot, ...]
    trajectories: str


def train_task(
    config: Config, store: Store, catalog: Catalog, precision: tuple[str, str], workers: Workers, role: str = MAIN
) -> TrainTask:
    """What a role of a config trains.

    `precision` is that of training and of scoring, resolved; the threads of `workers` are those of a worker.
    """
    spec = network_spec(config, catalog.num_classes, role)
    model, settings = config.model_of(role), config.train_of(role)
    # Scoring's precision and batch size: trajectories come from an evaluation pass after each epoch.
    forward = ForwardSettings(workers.device, precision[1], config.score.batch_size)
    feed = feed_settings(config, spec.size, settings.batch_size, role)
    fields = {
        # The size as it is resolved is in `spec`; weights count by what they hold, not by their name.
        "model": model.model_dump(exclude={"size"}) | {"weights": weights_digest(model.weights)},
        "train": train_fields(settings),
        "from": weights_digest(settings.from_),
        "also_kept": config.also_kept(role),
        "precision": precision,
        "score_batch": config.score.batch_size,
        "block_rows": config.blocks.rows,
        **image_fields(spec, feed),
    }
    folder = f"train-{role}-{fingerprint(f'train-{role}', VERSION, fields, [catalog.fingerprint])}"
    return TrainTask(
        role=role,
        store=store,
        folder=folder,
        catalog=catalog,
        spec=spec,
        train=settings,
        also_kept=config.also_kept(role),
        weights=model.weights,
        feed=feed,
        forward=forward,
        precision=precision[0],
        block_rows=config.blocks.rows,
        threads=workers.threads,
    )


def heads_task(
    config: Config, store: Store, features: StandardFeatures, workers: Workers, role: str = MAIN
) -> HeadsTask:
    """What a role of a config trains on features; the threads and the device of `workers` are those of a worker."""
    train, catalog = config.train_of(role), features.catalog
    old = None if train.from_ is None else find_old_heads(train.from_, role)
    settings = head_settings(train) if old is None else old.settings
    seed = role_seed(config.run.seed, role) if old is None else int(old.facts["seed"])
    epochs = min(settings.epochs, settings.epochs_of(catalog.num_rows))
    also_kept = config.simulated_loss.epoch_of(epochs) if config.is_judged(role) else 0
    fields = {
        "heads": asdict(settings),
        "seed": seed,
        "snapshot_every": train.snapshot_every,
        "also_kept": also_kept,
        "block_rows": config.blocks.rows,
        **({} if old is None else {"old": old.digest}),
    }
    inputs = [catalog.fingerprint, features.folder]
    return HeadsTask(
        role=role,
        store=store,
        folder=f"train-{role}-{fingerprint(f'heads-{role}', VERSION, fields, inputs)}",
        catalog=catalog,
        features=features,
        settings=settings,
        seed=seed,
        snapshot_every=train.snapshot_every,
        also_kept=also_kept,
        block_rows=config.blocks.rows,
        device=workers.device,
        threads=workers.threads,
        old=old,
    )


def head_settings(train: TrainSection) -> HeadSettings:
    """How heads learn by the section `train`."""
    return HeadSettings(
        weight_decays=tuple(train.weight_decays),
        folds=train.folds,
        epochs=train.epochs,
        batch_size=train.batch_size,
        alpha=train.mixup_alpha,
        loss=train.loss,
        head=train.head,
    )


def is_trained(task: RoleTask) -> bool:
    """Whether the role is finished."""
    return task.store.exists(f"{task.folder}/{DONE_FILE}")


def find_trained(task: RoleTask) -> Trained:
    """The finished role of a task."""
    done = read_json(task.store, f"{task.folder}/{DONE_FILE}")
    folder = task.results()
    snapshots = tuple(find_snapshot(task.store, folder, task.role, epoch) for epoch in task.kept_epochs())
    return Trained(folder, task.epochs, snapshots, done["trajectories"])


@dataclass(frozen=True)
class TrainJob(TrainingJob):
    """The training of a role; it is named by what it trains, its snapshots by what they hold.

    Attributes:
        workers: what it is trained on, for the record.
    """

    stage: ClassVar[str] = "train"
    suffix: ClassVar[str] = ".json"
    task: RoleTask
    workers: Workers

    def units(self) -> Sequence[str]:
        return [DONE_FILE.removesuffix(self.suffix)]

    def missing(self) -> list[str]:
        """The training, where it is not finished, or files of a finished one are lost."""
        return [] if is_trained(self.task) and not lost_epochs(self.task) else list(self.units())

    @property
    def label(self) -> str:
        return self.task.role

    @property
    def title(self) -> str:
        """With the role, but for the first one."""
        return self.stage if self.label == MAIN else f"{self.stage} {self.label}"

    @property
    def epochs(self) -> int:
        """Of the role, at least one."""
        return max(self.task.epochs, 1)

    def train(self, trainer: Trainer, meter: Meter) -> None:
        """Trains the role to its end, going on where an earlier start left it."""
        train_role(self.task, self.workers, trainer, meter)


def train_role(task: RoleTask, workers: Workers, trainer: Trainer, meter: Meter) -> Trained:
    """Trains a role to its end, going on where an earlier start left it.

    Raises:
        StageError: the workers failed more often than they are restarted.
    """
    lost = lost_epochs(task) if is_trained(task) else ()
    if lost or not is_trained(task):
        if task.epochs == 0:
            task.publish_untrained()
        else:
            _note_workers(task, workers)
            with watched(meter, lambda: _num_finished(task), task.catalog.num_rows, task.epochs):
                first = next((epoch for epoch in range(1, task.epochs + 1) if task.missing_of(epoch)), None)
                stop = lost[-1] if lost else None
                trainer(_train_on_rank, task, task.store, task.folder, first, stop)
        _publish_done(task, bool(lost))
    return find_trained(task)


def _train_on_rank(task: RoleTask, rank: int, ranks: int, resume: Resume, report: Report) -> None:
    task.run(Rank(rank, ranks), resume, report)


def lost_epochs(task: RoleTask) -> tuple[int, ...]:
    """Epochs of a finished role of which a snapshot or a trajectory is missing."""
    epochs = range(1, task.epochs + 1) if task.epochs else [0]
    return tuple(epoch for epoch in epochs if task.missing_of(epoch))


def _publish_done(task: RoleTask, was_lost: bool) -> None:
    """Says that a role is finished, and what its files hold; where some were lost, whether these came back the same."""
    name = f"{task.folder}/{DONE_FILE}"
    snapshots = (find_snapshot(task.store, task.results(), task.role, epoch) for epoch in task.kept_epochs())
    done: dict[str, Any] = {
        "trajectories": _digest_trajectories(task),
        "snapshots": {str(snapshot.epoch): snapshot.fingerprint for snapshot in snapshots},
    }
    if was_lost and (before := read_json(task.store, name)) != done:
        changed = [e for e, mark in done["snapshots"].items() if before.get("snapshots", {}).get(e, mark) != mark]
        log.warning(
            "%s: lost files came back with other bits (%s); what was computed from them is computed again",
            task.folder,
            f"snapshots of epochs {', '.join(changed)}" if changed else "trajectories",
        )
    write(task.store, name, done)


def _note_workers(task: RoleTask, workers: Workers) -> None:
    """Records the number of workers; says so when a resume has another one."""
    name = f"{task.folder}/{WORKERS_FILE}"
    if not create(task.store, name, {"workers": workers.actors, "threads": workers.threads}):
        before = read_json(task.store, name)["workers"]
        if before != workers.actors:
            log.warning(
                "%s was started with %d workers and goes on with %d: its weights will differ from an unbroken "
                "run's, statistically the same",
                task.folder,
                before,
                workers.actors,
            )


def _num_finished(task: RoleTask) -> int:
    """Epochs whose trajectories lie in the store; the newest epoch's folder is still being filled."""
    return max(0, len(task.store.list(f"{task.results()}/trajectories")) - 1)


def _digest_trajectories(task: RoleTask) -> str:
    """A fingerprint over all trajectory files, empty where there are none."""
    if not task.epochs:
        return ""
    blocks = num_blocks(task.catalog.num_rows, task.block_rows)
    names = [trajectory_name(epoch, block) for epoch in range(1, task.epochs + 1) for block in range(blocks)]
    digests = [content_digest(task.store, f"{task.results()}/{name}") for name in names]
    return fingerprint("trajectories", VERSION, {}, digests)
