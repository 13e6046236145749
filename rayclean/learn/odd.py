"""ODD training: one run, from which rows go whose loss random labels could have (ODD, ECCV 2020)."""

from __future__ import annotations

from dataclasses import replace

from rayclean.errors import ConfigError
from rayclean.learn.course import Course
from rayclean.learn.lesson_jobs import OddLesson, lesson_folder
from rayclean.learn.phase import Phase
from rayclean.learn.trial import Trial
from rayclean.scores.simulate_stage import JudgeJob, ThresholdJob, simulate_jobs
from rayclean.storage.contents import content_digest
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import num_blocks
from rayclean.train.snapshots import Snapshot
from rayclean.train.trajectories import trajectory_name


def odd(course: Course) -> list[Trial]:
    """E epochs at a high rate, removal by the simulated losses, the rest of the schedule without the removed rows.

    The schedule and the momentum go on as they are; only the rows change. The loss that is judged is that of an
    evaluation pass, of the bare images, mean over the last epochs up to E [our choice].

    Raises:
        ConfigError: there is no epoch left after the removal.
    """
    settings, train = course.config.simulated_loss, course.train
    last = settings.epoch_of(train.epochs)
    if last >= train.epochs:
        raise ConfigError(f"simulated_loss.epoch: found {last} of {train.epochs} epochs; take an earlier one")
    judged = tuple(range(max(1, last - settings.average + 1), last + 1))
    before = course.phase("up to the removal", train, stop=last, judged=judged, leaves_state=True)
    first = course.learn(before)
    _, judge = _simulate(course, before, first.snapshot)
    course.compute([judge])
    folder = lesson_folder("odd", {}, [judge.folder, course.people or ""])
    lesson = OddLesson(course.store, folder, course.catalog, course.people, None, judge)
    course.compute([lesson])
    second = course.learn(course.phase("ODD", train, lesson.lesson, goes_on=before))
    whole = replace(
        second.trial,
        accuracy=first.trial.accuracy | second.trial.accuracy,
        validation=first.trial.validation | second.trial.validation,
        lesson=lesson.lesson,
        more={"removed_after_epoch": last, "folders": [before.folder]},
    )
    return [whole]


def _simulate(course: Course, phase: Phase, snapshot: Snapshot) -> tuple[ThresholdJob, JudgeJob]:
    """The losses of random labels by the network of a snapshot, and the rows' losses beside them."""
    settings = course.config.simulated_loss
    embed = course.embed(snapshot) if settings.kind != "gauss" else None
    blocks = range(num_blocks(course.catalog.num_rows, phase.block_rows))
    names = [trajectory_name(epoch, block) for epoch in phase.judged for block in blocks]
    marks = [content_digest(course.store, f"{phase.folder}/{name}") for name in names]
    trajectories = fingerprint("trajectories", 1, {}, marks)
    seed = course.config.run.seed
    return simulate_jobs(course.catalog, snapshot, embed, phase.folder, trajectories, settings, seed, phase.block_rows)[
        :2
    ]
