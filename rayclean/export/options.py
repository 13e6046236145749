"""What an export is asked for, and which wishes contradict each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rayclean.errors import ConfigError

LABELS = ("given", "verified", "predicted")
SURE = 0.9
VIEW_ROWS = 1000
MAX_VIEW_ROWS = 100_000  # what Label Studio recommends for a project; the driver holds their lines


@dataclass(frozen=True)
class ExportOptions:
    """Which rows stay, and with which labels. At most one of `cut`, `budget` and `precision`.

    Attributes:
        cut: rows stay whose label is right with at least this probability, 0 to 1; None for `merge.threshold`.
        budget: the so many rows that are most likely right stay; with `removed`, the so many that are most likely
            wrong go.
        precision: the largest set of rows goes whose labels are wrong with this mean probability or more, 0 to 1.
        labels: `given` as they are; `verified`: people's in their place; `predicted`: also the prediction, where it
            is sure.
        sure: from which `predicted_score` on a prediction is taken, 0 to 1; None for 0.9.
        removed: export the rows that go in place of those that stay.
        limit: rows of kinds that show doubtful rows, the most doubtful first; None for 1,000.

    Raises:
        ConfigError: a value out of range, or two wishes that contradict each other.
    """

    cut: float | None = None
    budget: int | None = None
    precision: float | None = None
    labels: str = "given"
    sure: float | None = None
    removed: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        ways = {"--cut": self.cut, "--budget": self.budget, "--precision": self.precision}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(
                f"{' and '.join(given)} contradict each other: each says which rows stay; give one of them"
            )
        for name, share in (("--cut", self.cut), ("--precision", self.precision), ("--sure", self.sure)):
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{name} {share}: expected a probability, 0 to 1")
        for name, count in (("--budget", self.budget), ("--limit", self.limit)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} {count}: expected a number of rows, at least 1")
        if self.labels not in LABELS:
            raise ConfigError(f"--labels {self.labels}: expected one of {', '.join(LABELS)}")
        if self.sure is not None and self.labels != "predicted":
            raise ConfigError(f"--sure is for --labels predicted; with --labels {self.labels} no prediction is taken")

    @property
    def least_sure(self) -> float:
        """The `predicted_score` from which on a prediction is taken."""
        return SURE if self.sure is None else self.sure

    @property
    def view_rows(self) -> int:
        """Rows that are shown at most."""
        return VIEW_ROWS if self.limit is None else self.limit

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as plain values; nothing of what was left open."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}
