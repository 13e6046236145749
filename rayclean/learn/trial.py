"""What came of one network that a method has trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One network's accuracy.

    Attributes:
        name: what it is.
        accuracy: of the test samples, by epoch; epoch 0 is before the first.
        validation: of the validation samples.
        facts: more of it, for the record.
    """

    name: str
    accuracy: dict[int, float]
    validation: dict[int, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The highest accuracy; it needs the test labels, so it is for benchmarks."""
        return max(self.accuracy.values(), default=None)

    @property
    def last(self) -> float | None:
        """Accuracy after the last epoch."""
        return self.accuracy[max(self.accuracy)] if self.accuracy else None
