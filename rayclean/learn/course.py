"""What all methods of learning with the result share: the rows, the exams, and the way to phases and jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rayclean.catalog.table import Catalog
from rayclean.cluster.sizing import Workers
from rayclean.config import Config, TrainSection
from rayclean.decisions.verified import VerifiedSource
from rayclean.embed.table import Space
from rayclean.errors import ConfigError
from rayclean.learn.decay import CHOICE
from rayclean.learn.lesson_jobs import PeopleLesson, lesson_folder
from rayclean.learn.material import Material
from rayclean.learn.phase import Exam, Graded, Phase, accuracies, run_phase
from rayclean.learn.posterior import Judged
from rayclean.learn.trial import Trial
from rayclean.schema import Array
from rayclean.storage.contents import read_json
from rayclean.storage.executor import TrainFunction
from rayclean.storage.fingerprint import digest, fingerprint
from rayclean.storage.store import Store
from rayclean.storage.units import Job
from rayclean.train.forward import ForwardSettings
from rayclean.train.snapshots import Snapshot, find_snapshot, publish_weights, snapshot_name
from rayclean.train.spec import NetworkSpec
from rayclean.train.task import train_fields
from rayclean.train.weights import load_weights_from, weights_digest

VERSION = 1
LEARN = "learn"  # the role of snapshots, and of draws


@dataclass(frozen=True)
class Learned:
    """A finished phase."""

    phase: Phase
    snapshot: Snapshot
    trial: Trial


def url_of(store: Store, file: str) -> str:
    """A file of the run, as `train.from` names it."""
    return f"{store.root}/{file}"


@dataclass(frozen=True)
class Course:
    """Learning with the result of one run.

    Attributes:
        config: of the run, with `learn`.
        catalog: rows and given labels.
        material: what networks see of rows.
        known: verified samples; None without.
        known_rows: (V,) which of them are used.
        test: the exam; None without one.
        verified: labels that people have given; None without.
        roles: the last snapshot of each role of the run.
        workers: settled pools.
        precision: of training and of scoring.
        train_phase: does a phase by what each rank runs, or finds it done.
        compute: does jobs.
        judged: finds what the run has fitted to its rows.
    """

    config: Config
    store: Store
    catalog: Catalog
    material: Material
    known: Catalog | None
    known_rows: Array
    test: Exam | None
    verified: VerifiedSource | None
    roles: dict[str, Snapshot]
    workers: dict[str, Workers]
    precision: tuple[str, str]
    train_phase: Callable[[Graded, TrainFunction], None]
    compute: Callable[[Sequence[Job]], None]
    judged: Callable[[], Judged]

    @property
    def train(self) -> TrainSection:
        """How new networks are trained."""
        return self.material.train

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return self.material.spec

    @property
    def forward(self) -> ForwardSettings:
        """How networks are run when they score."""
        return self.material.forward

    @cached_property
    def examined(self) -> ForwardSettings:
        """How networks are run when they are examined: where they are trained, which may be another device."""
        return replace(self.forward, device=self.workers["train"].device)

    @property
    def exams(self) -> tuple[Exam, ...]:
        """Test and validation, as far as there are any."""
        return tuple(exam for exam in (self.test, self.validation) if exam is not None)

    @cached_property
    def validation(self) -> Exam | None:
        """The verified samples; None without any."""
        return None if self.known is None else self.material.exam("validation", self.known, self.known_rows)

    def exam_marks(self) -> list[list[str]]:
        """What a training's name holds of its exams."""
        return [[exam.name, exam.catalog.fingerprint, digest(exam.rows.tobytes())] for exam in self.exams]

    @cached_property
    def people(self) -> str | None:
        """The lesson of what people say, made now; all methods train on it where they take a label as given."""
        if self.verified is None:
            return None
        folder = lesson_folder("people", {}, [self.catalog.fingerprint, self.verified.digest])
        lesson = PeopleLesson(self.store, folder, self.catalog, None, None, self.verified)
        self.compute([lesson])
        return lesson.lesson

    def phase(
        self,
        name: str,
        train: TrainSection,
        lesson: str | None = None,
        start: str | None = None,
        goes_on: Phase | None = None,
        stop: int | None = None,
        judged: tuple[int, ...] = (),
        leaves_state: bool = False,
        purpose: str = LEARN,
    ) -> Phase:
        """A phase on this course's rows; see `Phase` for the arguments, `purpose` is what its draws are for."""
        if train.epochs < 1:
            raise ConfigError("train.epochs is 0: networks that are trained here need learn.train.epochs")
        lesson = lesson or self.people
        train, choice = self.tuned(train, lesson) if goes_on is None else (goes_on.train, goes_on.choice)
        forward, workers, stop = self.examined, self.workers["train"], stop or train.epochs
        feed, weights = self.material.feed(train.batch_size, purpose), self.material.weights
        new = start is None and goes_on is None
        fields = {
            "train": train_fields(train, "snapshot_every"),
            "weights": weights_digest(weights) if new else None,
            "start": weights_digest(start),
            "stop": stop,
            "judged": judged,
            "leaves_state": leaves_state,
            "precision": self.precision,
            "score_batch": forward.batch_size,
            "block_rows": self.config.blocks.rows,
            "exams": self.exam_marks(),
            **self.material.fields(feed),
        }
        inputs = [self.catalog.fingerprint, lesson or "", goes_on.folder if goes_on else ""]
        return Phase(
            name=name,
            store=self.store,
            folder=f"learn-{fingerprint(LEARN, VERSION, fields, inputs)}",
            catalog=self.catalog,
            spec=self.spec,
            train=train.model_copy(update={"from_": start}),
            lesson=lesson,
            goes_on=None if goes_on is None else goes_on.state_file,
            stop=stop,
            judged=judged,
            leaves_state=leaves_state,
            exams=self.exams,
            choice=choice,
            weights=weights if new else None,
            feed=feed,
            forward=forward,
            precision=self.precision[0],
            block_rows=self.config.blocks.rows,
            threads=workers.threads,
        )

    def tuned(self, train: TrainSection, lesson: str | None) -> tuple[TrainSection, str | None]:
        """How a lesson is trained on, and the file that says why; None where nothing was to be chosen."""
        train, job = self.material.tuned(train, lesson, self.validation)
        if job is None:
            return train, None
        self.compute([job])
        file = job.file(CHOICE)
        return train.changed({"weight_decay": read_json(self.store, file)["weight_decay"]}), file

    def learn(self, phase: Phase) -> Learned:
        """Does a phase, or finds it done."""
        trial = self.graded(phase, run_phase)
        return Learned(phase, find_snapshot(self.store, phase.folder, LEARN, phase.stop), trial)

    def graded(self, phase: Graded, function: TrainFunction) -> Trial:
        """Does a training by what each rank runs, or finds it done; its accuracies."""
        self.train_phase(phase, function)
        correct = phase.correct_file if self.store.exists(phase.correct_file) else None
        choice = None if phase.choice is None else read_json(self.store, phase.choice)
        found = accuracies(phase, "test"), accuracies(phase, "validation")
        return Trial(phase.name, phase.folder, *found, correct, choice)

    def embed(self, snapshot: Snapshot, catalog: Catalog | None = None) -> Space:
        """What a network makes of all rows, or of those of another catalog."""
        return self.material.embed(snapshot, catalog or self.catalog)

    def start(self) -> tuple[Snapshot, list[Trial]]:
        """The network that `learn.from` names, and what it took to have it.

        Raises:
            ConfigError: there is none of that name, or weights that do not fit.
        """
        source = self.config.learn.from_
        if source == "plain":
            learned = self.learn(self.plain())
            return learned.snapshot, [learned.trial]
        if source not in self.roles:
            return self._elsewhere(source), []
        return self.roles[source], []

    def _elsewhere(self, source: str) -> Snapshot:
        """Weights from elsewhere as a snapshot of this run."""
        network = self.spec.build()
        try:
            load_weights_from(source, network)
        except ConfigError as e:
            names = ", ".join(("plain", *self.roles))
            raise ConfigError(f"learn.from {source}: none of {names}, and not weights either: {e}") from e
        folder = f"learn-{fingerprint('learn-from', VERSION, {'weights': weights_digest(source)}, [])}"
        publish_weights(self.store, f"{folder}/{snapshot_name(0)}", network)
        return find_snapshot(self.store, folder, LEARN, 0)

    def plain(self) -> Phase:
        """Training on everything."""
        return self.phase("on everything", self.train)
