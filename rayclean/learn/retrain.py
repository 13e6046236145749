"""A new network on what the table thinks is right, beside one on everything: the simplest use of the result."""

from __future__ import annotations

from dataclasses import replace

from rayclean.errors import ConfigError
from rayclean.learn.course import Course
from rayclean.learn.lesson_jobs import TableLesson, lesson_folder
from rayclean.learn.posterior import PosteriorLesson
from rayclean.learn.trial import Trial
from rayclean.schema import JOINT
from rayclean.storage.published import Published


def plain(course: Course) -> list[Trial]:
    """Trains on all rows with their given labels."""
    return [course.learn(course.plain()).trial]


def retrain(course: Course) -> list[Trial]:
    """Trains on all rows, and on the rows above the cut (or weighted, relabelled, or by the posterior).

    Raises:
        ConfigError: the posterior is wanted of a run that has none, or by a loss that takes none.
        InputError: the run has no complete table, or for the posterior not the one of its config.
    """
    by = course.config.learn.retrain.by
    lesson = _posterior_lesson(course) if by == "posterior" else _table_lesson(course)
    course.compute([lesson])
    learned = course.learn(course.phase(f"retrain by {by}", course.train, lesson.lesson))
    return [*plain(course), replace(learned.trial, lesson=lesson.lesson)]


def _table_lesson(course: Course) -> TableLesson:
    settings = course.config.learn.retrain
    cut = course.config.merge.threshold if settings.cut is None else settings.cut
    table = Published.open(course.store).merge
    folder = lesson_folder(
        "table", settings.model_dump() | {"cut": cut}, [course.catalog.fingerprint, table, course.people or ""]
    )
    return TableLesson(course.store, folder, course.catalog, course.people, None, settings, cut)


def _posterior_lesson(course: Course) -> PosteriorLesson:
    if (score := course.config.merge_score()) != JOINT:
        raise ConfigError(
            f"learn.retrain.by is posterior, but merge.score is {score}, which says nothing of the other classes; run "
            "with merge.score=joint, or take cut, weight or predicted"
        )
    if course.train.loss == "ce+ne":
        raise ConfigError("learn.retrain.by is posterior, but the loss ce+ne takes no soft labels; take ce or mixup")
    judged = course.judged()
    folder = lesson_folder("posterior", {}, [course.catalog.fingerprint, judged.merge, course.people or ""])
    return PosteriorLesson(course.store, folder, course.catalog, course.people, None, judged)
