"""What came of one network that a method has trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trial:
    """One network's accuracy, and what it comes from.

    Attributes:
        name: what it is.
        folder: of the phase or job that it ends with, in the run.
        accuracy: of the test samples, by epoch; epoch 0 is before the first.
        validation: of the validation samples.
        correct: file of which samples it gets right; None without an exam.
        choice: how its weight decay was chosen; None where it was given.
        lesson: file of the rows and labels that the method made for it; None where it made none.
        undone: whether its round was undone; None where the method has no rounds.
        more: what else its method says, for the record.
    """

    name: str
    folder: str
    accuracy: dict[int, float]
    validation: dict[int, float] = field(default_factory=dict)
    correct: str | None = None
    choice: Mapping[str, object] | None = None
    lesson: str | None = None
    undone: bool | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The highest accuracy; it needs the test labels, so it is for benchmarks."""
        return max(self.accuracy.values(), default=None)

    @property
    def last(self) -> float | None:
        """Accuracy after the last epoch."""
        return self.accuracy[max(self.accuracy)] if self.accuracy else None

    def facts(self) -> dict[str, object]:
        """All but its accuracy, as plain values; a round names its lesson even where it has none."""
        known = {"folder": self.folder, "correct": self.correct, "choice": self.choice, "lesson": self.lesson}
        of_round = {} if self.undone is None else {"lesson": self.lesson, "undone": self.undone}
        return {name: value for name, value in known.items() if value is not None} | of_round | dict(self.more)
