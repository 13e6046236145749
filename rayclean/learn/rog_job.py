"""RoG on the embedding of a network: a classifier that wrong labels hardly move, with no further training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rayclean.catalog.table import Catalog
from rayclean.embed.table import Embedding
from rayclean.learn.course import Course
from rayclean.learn.rog import fit_rog
from rayclean.learn.trial import Trial
from rayclean.storage.contents import read_json
from rayclean.storage.draws import smallest_draws
from rayclean.storage.fingerprint import fingerprint
from rayclean.storage.units import Job, UnitResult

VERSION = 1
RESULT = "rog"
CORRECT_FILE = "correct.safetensors"
FIT_ROWS = 200_000  # whose features are held at once


@dataclass(frozen=True)
class RogJob(Job):
    """Fits RoG to the rows and examines it. One unit.

    Attributes:
        rows: embedding of the rows.
        exams: by name, the catalog, its embedding and which of its rows.
    """

    stage: ClassVar[str] = "learn"
    suffix: ClassVar[str] = ".json"
    catalog: Catalog
    rows: Embedding
    exams: tuple[tuple[str, Catalog, Embedding, tuple[int, ...]], ...]
    seed: int

    def units(self) -> Sequence[str]:
        """The one unit."""
        return [RESULT]

    def open(self) -> Callable[[str], UnitResult]:
        """Nothing to load."""

        def compute(_: str) -> UnitResult:
            chosen = np.flatnonzero(smallest_draws(self.seed, "learn.rog", self.catalog.draw_id, FIT_ROWS))
            features, labels = self.rows.features(chosen), self.catalog.label[chosen]
            classifier = fit_rog(
                features, labels, self.catalog.num_classes, self.seed, ids=self.catalog.draw_id[chosen]
            )
            right = {}
            for name, catalog, embedding, which in self.exams:
                rows = np.array(which)
                predicted = classifier.logits(embedding.features(rows)).argmax(axis=1)
                right[name] = (predicted == catalog.label[rows]).astype(np.uint8)
            found = {name: {"correct": int(each.sum()), "samples": len(each)} for name, each in right.items()}
            return UnitResult(found, {CORRECT_FILE: right} if right else {}, rows=len(chosen))

        return compute

    def beside(self, unit: str) -> Sequence[str]:
        """Which samples of each exam it gets right, where there is any."""
        return [CORRECT_FILE] if self.exams else []


def rog(course: Course) -> list[Trial]:
    """RoG (Lee et al., ICML 2019) on the last layer's features of the network that `learn.from` names."""
    network, trials = course.start()
    rows = course.embed(network)
    embeds = [course.embed(network, exam.catalog) for exam in course.exams]
    course.compute(list({job.folder: job for job in (rows, *embeds)}.values()))
    exams = tuple(
        (exam.name, exam.catalog, job.embedding, tuple(exam.rows.tolist()))
        for exam, job in zip(course.exams, embeds, strict=True)
    )
    marks = [[exam.name, exam.rows.tolist()] for exam in course.exams]
    seed = course.config.run.seed
    folder = f"lesson-{fingerprint('rog', VERSION, {'exams': marks, 'seed': seed}, [rows.folder])}"
    job = RogJob(course.store, folder, course.catalog, rows.embedding, exams, seed)
    course.compute([job])
    found = read_json(course.store, job.file(RESULT))
    share = {name: {0: counts["correct"] / counts["samples"]} for name, counts in found.items()}
    correct = f"{folder}/{CORRECT_FILE}" if exams else None
    return [*trials, Trial("RoG", folder, share.get("test", {}), share.get("validation", {}), correct)]
