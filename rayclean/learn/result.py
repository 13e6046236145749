"""What a method of learning gave: as plain values, and printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from rayclean.learn.removal import Removal
from rayclean.learn.trial import Trial


@dataclass(frozen=True)
class Result:
    """What a method gave.

    Attributes:
        file: where it is kept, in the run.
        trials: its networks, in order.
        removals: by trial, what its lesson left out, where it did.
    """

    method: str
    file: str
    trials: list[Trial]
    removals: dict[str, Removal]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        removals = {name: removal.to_json() for name, removal in self.removals.items()}
        trials = [
            {"name": t.name, "best": t.best, "last": t.last, "accuracy": t.accuracy, "validation": t.validation}
            | {"facts": t.facts(), "removal": removals.get(t.name)}
            for t in self.trials
        ]
        return {"method": self.method, "trials": trials}


def print_learned(console: Console, root: str, result: Result) -> None:
    """Test accuracy of each network, and what its lesson left out."""
    table = Table(box=None, pad_edge=False)
    for name in ("network", "test: best", "last", "validation", "left out", "of these wrong"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for trial in result.trials:
        removal, validation = result.removals.get(trial.name), list(trial.validation.values())
        table.add_row(
            trial.name + (" (undone)" if trial.undone else ""),
            _percent(trial.best),
            _percent(trial.last),
            _percent(validation[-1] if validation else None),
            f"{removal.removed:,} of {removal.rows:,}" if removal else "",
            _percent(removal.rightness.precision if removal and removal.rightness else None),
        )
    console.print(table)
    if all(trial.last is None for trial in result.trials):
        console.print("no accuracy: set learn.test to shards whose labels are right")
    console.print(f"kept in {root}/{result.file}", markup=False)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
