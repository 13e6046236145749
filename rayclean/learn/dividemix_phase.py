"""DivideMix on Ray Train: both networks on every rank, a checkpoint an epoch, examined together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rayclean.catalog.table import Catalog
from rayclean.learn.course import VERSION, Course, Trial
from rayclean.learn.dividemix import Networks, dividemix_epochs
from rayclean.learn.dividemix_settings import DivideMixSettings, Starts, divided_train
from rayclean.learn.lesson_jobs import read_columns
from rayclean.learn.phase import Exam, Report, accuracies, examine, read_lesson
from rayclean.learn.rescoring import rescore
from rayclean.schema import Array
from rayclean.storage.contents import encode, map_arrays, read_json
from rayclean.storage.fingerprint import digest, fingerprint
from rayclean.storage.published import Published
from rayclean.storage.resume import Resume
from rayclean.storage.store import Store
from rayclean.train.feed import Feed, FeedSettings
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank
from rayclean.train.plan import epoch_seed, role_seed, steps_of
from rayclean.train.snapshots import load_snapshot, publish_weights
from rayclean.train.spec import NetworkSpec

STARTS_FILE = "starts.safetensors"
PURPOSES = ("dividemix-0", "dividemix-1")  # whose draws the two networks begin with


@dataclass(frozen=True)
class DividePhase:
    """One DivideMix training: picklable, the same on every rank.

    Attributes:
        folder: `learn-<fingerprint>`.
        lesson: file of the labels; None for the given ones.
        is_joint: whether rows are split by the table's `label_score`.
        starts: snapshots of the two networks whose scores the first split is made by; None to warm up.
        exams: what both networks are examined on after each epoch, by the sum of their logits.
    """

    name: str
    store: Store
    folder: str
    catalog: Catalog
    spec: NetworkSpec
    settings: DivideMixSettings
    lesson: str | None
    is_joint: bool
    starts: tuple[str, str] | None
    exams: tuple[Exam, ...]
    weights: str | None
    seeds: tuple[int, int]
    feed: FeedSettings

    @property
    def stop(self) -> int:
        """The last epoch."""
        return self.settings.section.epochs

    def accuracy_file(self, epoch: int) -> str:
        """What the networks of an epoch got right."""
        return f"{self.folder}/accuracy/epoch-{epoch:04d}.json"

    def facts_file(self, epoch: int) -> str:
        """What was split and lost in an epoch."""
        return f"{self.folder}/facts/epoch-{epoch:04d}.json"


class FeedSource:
    """The rows of a lesson, counted from 0 without those that are left out, as DivideMix reads them."""

    def __init__(self, phase: DividePhase, rank: Rank) -> None:
        lesson = read_lesson(phase.store, phase.lesson, phase.catalog)
        self.rows, self.rank = lesson.rows, rank
        self.labels = lesson.labels[self.rows]
        self.digests, self.draws = phase.catalog.digest[self.rows], phase.catalog.draw_id[self.rows]
        self.feed = Feed(phase.catalog, phase.feed, rank.index, rank.count, lesson)

    def images(self, rows: Array) -> Array:
        """(R, S, S, 3) uint8."""
        return self.feed.images(self.rows[rows])

    def batches(self, rows: Array, epoch: int, name: str, batch_size: int) -> Iterator[tuple[Array, torch.Tensor]]:
        """One shuffled pass over this rank's share."""
        seed = epoch_seed(self.feed.settings.seed, 0, 0, name)
        for some, images in self.feed.row_batches(self.rows[rows], seed, epoch, batch_size):
            yield np.searchsorted(self.rows, some), torch.from_numpy(images)

    def num_batches(self, rows: Array, batch_size: int) -> int:
        """Batches of a pass."""
        return steps_of(-(-len(rows) // self.rank.count), batch_size)


class Ensemble(Forward):
    """Two networks that predict by the sum of their logits."""

    def __init__(self, networks: Networks, spec: NetworkSpec, settings: DivideMixSettings) -> None:
        super().__init__(networks[0], spec, settings.forward)
        self.other = Forward(networks[1], spec, settings.forward)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, K) float32."""
        return super().logits(inputs) + self.other.logits(inputs)


def run_dividemix(phase: DividePhase, index: int, ranks: int, resume: Resume, report: Report) -> None:
    """Trains as one rank, from a state or from the start, to the last epoch."""
    rank, settings = Rank(index, ranks), phase.settings
    source = FeedSource(phase, rank)
    one, two = (phase.spec.build(seed, phase.weights) for seed in phase.seeds)
    given = read_columns(phase.store, ["label_score"])["label_score"][source.rows] if phase.is_joint else None
    starts = _start_scores(phase, source, rank)
    epochs = dividemix_epochs(settings, phase.spec, (one, two), source, rank, resume.state, given, starts)
    for epoch, networks, facts, after in epochs:
        examine(phase, Ensemble(networks, phase.spec, settings), epoch, rank)
        if rank.index == 0:
            phase.store.publish(phase.facts_file(epoch), encode(phase.facts_file(epoch), facts, "{}"))
            if epoch == phase.stop:
                for number, network in enumerate(networks):
                    publish_weights(phase.store, f"{phase.folder}/snapshots/network-{number}.safetensors", network)
        report(epoch, after if rank.index == 0 else None)


def _start_scores(phase: DividePhase, source: FeedSource, rank: Rank) -> Starts | None:
    """The scores of the two networks that were trained before; what a killed start has computed is read."""
    if phase.starts is None:
        return None
    name, rows = f"{phase.folder}/{STARTS_FILE}", np.arange(len(source.labels))
    if phase.store.exists(name):
        arrays = map_arrays(phase.store, name)
        return arrays["0"], arrays["1"]
    networks = (load_snapshot(phase.store, file, phase.spec) for file in phase.starts)
    one, two = (rescore(phase.settings, phase.spec, network, source, rows, rank) for network in networks)
    if rank.index == 0:
        phase.store.publish(name, encode(name, {"0": one, "1": two}, "{}"))
    return one, two


def dividemix(course: Course) -> list[Trial]:
    """DivideMix by the losses, by IOFM or INN scores, or by the table's `label_score`.

    Raises:
        ConfigError: settings that contradict each other.
        InputError: `label_score` is wanted, but the run has no complete table.
    """
    section = course.config.learn.dividemix
    trials, starts, marks = [], None, [course.catalog.fingerprint, course.people or ""]
    is_joint = section.score == "joint"
    if is_joint:
        marks.append(Published.open(course.store).merge)
    elif section.start == "scores":
        learned = [course.learn(course.phase(f"start {p}", course.train, purpose=p)) for p in PURPOSES]
        trials = [each.trial for each in learned]
        starts = learned[0].snapshot.file, learned[1].snapshot.file
        marks += starts
    feed = course.feed(section.batch_size, PURPOSES[0])
    settings = DivideMixSettings(
        section=section,
        walks=course.config.inn if section.score == "inn" else course.config.iofm,
        train=divided_train(section, course.train),
        seed=feed.seed,
        precision=course.precision[0],
        forward=course.examined,
        threads=course.workers["train"].threads,
    )
    fields = {
        "settings": _read_fields(settings),
        "model": course.model.model_dump(exclude={"size"}),
        "spec": [course.spec.size, course.spec.mean, course.spec.std],
        "feed": [feed.cache_bytes, feed.shuffle_rows, feed.seed],
        "exams": [[exam.name, exam.catalog.fingerprint, digest(exam.rows.tobytes())] for exam in course.exams],
    }
    name = "DivideMix" if section.score == "loss" else f"DivideMix by {section.score}"
    phase = DividePhase(
        name=name,
        store=course.store,
        folder=f"learn-{fingerprint('dividemix', VERSION, fields, marks)}",
        catalog=course.catalog,
        spec=course.spec,
        settings=settings,
        lesson=course.people,
        is_joint=is_joint,
        starts=starts,
        exams=course.exams,
        weights=course.model.weights,
        seeds=(role_seed(course.config.run.seed, PURPOSES[0]), role_seed(course.config.run.seed, PURPOSES[1])),
        feed=feed,
    )
    course.train_phase(phase, run_dividemix)
    found = {exam: accuracies(phase, exam) for exam in ("test", "validation")}
    facts = {"folder": phase.folder, "last": read_json(course.store, phase.facts_file(phase.stop))}
    return [*trials, Trial(name, found["test"], found["validation"], facts)]


def _read_fields(settings: DivideMixSettings) -> dict[str, Any]:
    """What the networks depend on, by the names that it had before the section was passed on as it is."""
    section, walks, train, forward = settings.section, settings.walks, settings.train, settings.forward
    fields = section.model_dump() | {
        "mixture": None if section.mixture == "auto" else section.mixture,
        "num": walks.num,
        "steps": walks.steps,
        "momentum": train.momentum,
        "weight_decay": train.weight_decay,
        "augment": train.augment,
        "seed": settings.seed,
        "precision": settings.precision,
        "score_precision": forward.precision,
        "score_batch_size": forward.batch_size,
    }
    return fields if train.optimizer == "sgd" else fields | {"optimizer": train.optimizer}
