"""A new network on what the table thinks is right, beside one on everything: the simplest use of the result."""

from __future__ import annotations

from rayclean.learn.course import Course, Trial
from rayclean.learn.lesson_jobs import TableLesson, lesson_folder
from rayclean.storage.published import Published


def plain(course: Course) -> list[Trial]:
    """Trains on all rows with their given labels."""
    return [course.learn(course.plain()).trial]


def retrain(course: Course) -> list[Trial]:
    """Trains on all rows, and on the rows above the cut (or weighted, or relabelled).

    Raises:
        InputError: the run has no complete table.
    """
    settings = course.config.learn.retrain
    cut = course.config.merge.threshold if settings.cut is None else settings.cut
    table = Published.open(course.store).merge
    folder = lesson_folder(
        "table", settings.model_dump() | {"cut": cut}, [course.catalog.fingerprint, table, course.people or ""]
    )
    lesson = TableLesson(course.store, folder, course.catalog, course.people, None, settings, cut)
    course.compute([lesson])
    learned = course.learn(course.phase(f"retrain by {settings.by}", course.train, lesson.lesson))
    learned.trial.facts["lesson"] = lesson.lesson
    return [*plain(course), learned.trial]
