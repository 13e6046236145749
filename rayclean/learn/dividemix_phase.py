"""DivideMix on Ray Train: both networks on every rank, a checkpoint an epoch, examined together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rayclean.config import DivideMixSection, InnSection, IofmSection, TrainSection
from rayclean.learn.course import VERSION, Course
from rayclean.learn.dividemix import Networks, dividemix_epochs
from rayclean.learn.dividemix_settings import DivideMixSettings, Starts, divided_train
from rayclean.learn.lesson_jobs import read_columns
from rayclean.learn.phase import Graded, examine
from rayclean.learn.rescoring import rescore
from rayclean.learn.trial import Trial
from rayclean.schema import Array
from rayclean.storage.contents import map_arrays, read_json, write
from rayclean.storage.executor import Report
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.published import Published
from rayclean.storage.resume import Resume
from rayclean.train.forward import Forward
from rayclean.train.loop import Rank
from rayclean.train.plan import epoch_seed, role_seed, steps_of
from rayclean.train.snapshots import load_snapshot, publish_weights

STARTS_FILE = "starts.safetensors"
PURPOSES = ("dividemix-0", "dividemix-1")  # whose draws the two networks begin with


@dataclass(frozen=True, kw_only=True)
class DividePhase(Graded):
    """One DivideMix training, examined by the sum of both networks' logits.

    Attributes:
        section: how rows are divided and networks trained; `train` is `divided_train` of it.
        walks: whose L and H the paths have.
        is_joint: whether rows are split by the table's `label_score`.
        starts: snapshots of the two networks whose scores the first split is made by; None to warm up.
        seeds: of the two networks' weights.
    """

    section: DivideMixSection
    walks: IofmSection | InnSection
    is_joint: bool
    starts: tuple[str, str] | None
    seeds: tuple[int, int]

    @property
    def settings(self) -> DivideMixSettings:
        """What the training reads of it."""
        return DivideMixSettings(
            self.section, self.walks, self.train, self.feed.seed, self.precision, self.forward, self.threads
        )

    def facts_file(self, epoch: int) -> str:
        """What was split and lost in an epoch."""
        return f"{self.folder}/facts/epoch-{epoch:04d}.json"


class FeedSource:
    """The rows of a lesson, counted from 0 without those that are left out, as DivideMix reads them."""

    def __init__(self, phase: DividePhase, rank: Rank) -> None:
        lesson = phase.read_lesson()
        self.rows, self.rank = lesson.rows, rank
        self.labels = lesson.labels[self.rows]
        self.digests, self.draws = phase.catalog.twins[self.rows], phase.catalog.draw_id[self.rows]
        self.feed = phase.open_feed(rank, lesson)

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

    def __init__(self, networks: Networks, phase: DividePhase) -> None:
        super().__init__(networks[0], phase.spec, phase.forward)
        self.other = phase.forward_of(networks[1])

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, K) float32."""
        return super().logits(inputs) + self.other.logits(inputs)


def run_dividemix(phase: DividePhase, index: int, ranks: int, resume: Resume, report: Report) -> None:
    """Trains as one rank, from a state or from the start, to the last epoch."""
    rank, settings = Rank(index, ranks), phase.settings
    source = FeedSource(phase, rank)
    one, two = (phase.new_network(seed) for seed in phase.seeds)
    given = read_columns(phase.catalog, ["label_score"])["label_score"][source.rows] if phase.is_joint else None
    starts = _start_scores(phase, source, rank)
    epochs = dividemix_epochs(settings, phase.spec, (one, two), source, rank, resume.state, given, starts)
    for epoch, networks, facts, after in epochs:
        examine(phase, Ensemble(networks, phase), epoch, rank)
        if rank.index == 0:
            write(phase.store, phase.facts_file(epoch), facts)
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
        write(phase.store, name, {"0": one, "1": two})
    return one, two


def dividemix(course: Course) -> list[Trial]:
    """DivideMix by the losses, by IOFM or INN scores, or by the table's `label_score`.

    Raises:
        ConfigError: settings that contradict each other.
        InputError: `label_score` is wanted, but the run has no complete table.
    """
    section = course.material.divided(course.config.learn.dividemix)
    trials, starts, marks = [], None, [course.catalog.fingerprint, course.people or ""]
    is_joint = section.score == "joint"
    if is_joint:
        marks.append(Published.open(course.store).merge)
    elif section.start == "scores":
        learned = [course.learn(course.phase(f"start {p}", course.train, purpose=p)) for p in PURPOSES]
        trials = [each.trial for each in learned]
        starts = learned[0].snapshot.file, learned[1].snapshot.file
        marks += starts
    walks = course.config.inn if section.score == "inn" else course.config.iofm
    tuned, choice = course.tuned(course.train, course.people)
    train, feed = divided_train(section, tuned), course.material.feed(section.batch_size, PURPOSES[0])
    fields = {
        "settings": _read_fields(course, section, train, walks, feed.seed),
        "exams": course.exam_marks(),
        **course.material.fields(feed),
    }
    name = "DivideMix" if section.score == "loss" else f"DivideMix by {section.score}"
    phase = DividePhase(
        name=name,
        store=course.store,
        folder=f"learn-{fingerprint('dividemix', VERSION, fields, marks)}",
        catalog=course.catalog,
        spec=course.spec,
        train=train,
        weights=course.material.weights,
        feed=feed,
        forward=course.examined,
        precision=course.precision[0],
        block_rows=course.config.blocks.rows,
        threads=course.workers["train"].threads,
        lesson=course.people,
        exams=course.exams,
        stop=section.epochs,
        choice=choice,
        section=section,
        walks=walks,
        is_joint=is_joint,
        starts=starts,
        seeds=(feed.seed, role_seed(course.config.run.seed, PURPOSES[1])),
    )
    trial = course.graded(phase, run_dividemix)
    last = read_json(course.store, phase.facts_file(phase.stop))
    return [*trials, replace(trial, more={"last": last})]


def _read_fields(
    course: Course, section: DivideMixSection, train: TrainSection, walks: IofmSection | InnSection, seed: int
) -> dict[str, Any]:
    """What the networks depend on, by the names that it had before the section was passed on as it is."""
    fields = section.model_dump() | {
        "mixture": None if section.mixture == "auto" else section.mixture,
        "num": walks.num,
        "steps": walks.steps,
        "momentum": train.momentum,
        "weight_decay": train.weight_decay,
        "augment": train.augment,
        "seed": seed,
        "precision": course.precision[0],
        "score_precision": course.precision[1],
        "score_batch_size": course.config.score.batch_size,
    }
    return fields if train.optimizer == "sgd" else fields | {"optimizer": train.optimizer}
