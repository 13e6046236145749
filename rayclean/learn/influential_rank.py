"""Influential Rank's post-training of a network that has learned wrong labels (Algorithm 1 and section 3.3)."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.config import TrainSection
from rayclean.errors import ConfigError, InputError
from rayclean.learn.course import Course, url_of
from rayclean.learn.lesson_jobs import LessonJob, RankLesson, RelabelLesson, lesson_folder
from rayclean.learn.trial import Trial
from rayclean.scores.influence_stage import FitJob, influence_jobs
from rayclean.scores.influence_votes import gamma_count
from rayclean.storage.contents import map_arrays
from rayclean.train.snapshots import Snapshot

log = logging.getLogger(__name__)


def influential_rank(course: Course) -> list[Trial]:
    """Rounds of influence, removal and training on; then a new network on the corrected set.

    A round after which the network is no better on the validation samples is undone, and ends the rounds. The new
    network is trained as `train` says [our choice: the paper gives no schedule].

    Raises:
        ConfigError: there are no validation samples.
    """
    if course.known is None:
        raise ConfigError(
            "influential_rank needs verified samples: set influence.validation to their shards, or to split"
        )
    settings = course.config.learn.rank
    network, trials = course.start()
    kept, lesson, best = course.people, None, None
    for index in range(1, settings.rounds + 1):
        removal = None if settings.removal == "nothing" else _removal(course, course.known, network, kept)
        file = removal.lesson if removal else None
        start = url_of(course.store, network.file)
        learned = course.learn(course.phase(f"round {index}", _post_train(course), file, start=start))
        before = learned.trial.validation[0] if best is None else best
        after = learned.trial.validation[learned.phase.stop]
        undone = after <= before and settings.removal != "nothing"
        trials.append(replace(learned.trial, lesson=file, undone=undone))
        if undone:
            break
        network, kept, lesson, best = learned.snapshot, file, removal, after
    if lesson is not None:
        trials.append(_new_network(course, network, lesson))
    return trials


def _post_train(course: Course) -> TrainSection:
    """The rate back up, x0.1 after each milestone."""
    settings = course.config.learn.rank
    milestones = [epoch for epoch in settings.milestones if epoch < settings.epochs]
    schedule = {"schedule": "step", "milestones": milestones, "decay": 0.1} if milestones else {"schedule": "constant"}
    return course.train.changed({"milestones": [], "epochs": settings.epochs, **schedule})


def _removal(course: Course, known: Catalog, network: Snapshot, kept: str | None) -> RankLesson:
    """What a round removes by this network's influences on verified samples, of the rows that are still there."""
    decay = course.tuned(course.train, course.people)[0].weight_decay
    settings = course.material.damped(course.config.influence, decay)
    by_clip, of_known = course.config.data.group_by == "gradient", (known, course.embed(network, known))
    jobs = influence_jobs(
        course.catalog, course.embed(network), of_known, settings, course.config.run.seed, by_clip, among=kept
    )
    course.compute(jobs)
    small_loss = course.config.learn.rank.removal == "small_loss"
    _, raw, fitted = jobs
    voters, num_classes = _voters(course, fitted), course.catalog.num_classes
    num_votes = gamma_count(settings.gamma, voters)
    fields = {"gamma": settings.gamma, "small_loss": small_loss}
    fields |= {} if voters == num_classes else {"voters": voters}  # names of lessons that are the same stay
    folder = lesson_folder("rank", fields, [jobs[0].folder, kept or ""])
    lesson = RankLesson(course.store, folder, course.catalog, course.people, kept, raw, fitted, num_votes, small_loss)
    course.compute([lesson])
    if np.array_equal(lesson.labels_before(), map_arrays(course.store, lesson.lesson)["labels"]):
        log.warning(
            "influential_rank: this round removes no row: none has %d votes of the %d classes (of %d) with verified "
            "rows; lower influence.gamma (%s), or verify rows of more classes",
            num_votes,
            voters,
            num_classes,
            settings.gamma,
        )
    return lesson


def _voters(course: Course, fitted: FitJob) -> int:
    """How many classes can vote: those of two verified rows or more.

    Raises:
        InputError: none can, but votes are asked for.
    """
    voters = int((~np.isnan(map_arrays(course.store, fitted.file(fitted.units()[0]))["thresholds"])).sum())
    if not voters and course.config.influence.gamma:
        raise InputError(
            "influential_rank: no class has two verified rows, so none can vote; verify more rows "
            "(influence.validation, influence.validation_num), or set influence.gamma=0 for OSM alone"
        )
    return voters


def _new_network(course: Course, network: Snapshot, lesson: LessonJob) -> Trial:
    """Trained from the start on the corrected set."""
    rows, sure = course.embed(network), course.config.learn.rank.keep
    course.compute([rows])
    folder = lesson_folder("relabel", {"keep": sure}, [rows.folder, lesson.lesson])
    corrected = RelabelLesson(course.store, folder, course.catalog, course.people, lesson.lesson, rows.embedding, sure)
    course.compute([corrected])
    learned = course.learn(course.phase("new network", course.train, corrected.lesson))
    return replace(learned.trial, lesson=corrected.lesson)
