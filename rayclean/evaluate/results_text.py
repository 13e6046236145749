"""What `rayclean learn` and `rayclean export` print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_learned(console: Console, root: str, file: str, result: dict[str, Any]) -> None:
    """Test accuracy of each network, and what its lesson left out."""
    table = Table(box=None, pad_edge=False)
    for name in ("network", "test: best", "last", "validation", "left out", "of these wrong"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for trial in result["trials"]:
        removal = trial["removal"] or {}
        validation = list(trial["validation"].values())
        table.add_row(
            trial["name"] + (" (undone)" if trial["facts"].get("undone") else ""),
            _percent(trial["best"]),
            _percent(trial["last"]),
            _percent(validation[-1] if validation else None),
            f"{removal['removed']:,} of {removal['rows']:,}" if removal else "",
            _percent(removal.get("precision")),
        )
    console.print(table)
    if all(trial["last"] is None for trial in result["trials"]):
        console.print("no accuracy: set learn.test to shards whose labels are right")
    console.print(f"kept in {root}/{file}", markup=False)


def print_export(console: Console, out: str, summary: dict[str, Any]) -> None:
    """How many rows went where, and why the others did not."""
    files = summary["files"]
    console.print(
        f"{summary['exported']:,} of {summary['rows']:,} rows exported as {summary['to']} to {out} "
        f"({files:,} {'file' if files == 1 else 'files'}, with README.md and croissant.json)",
        markup=False,
    )
    for reason, count in summary["reasons"].items():
        console.print(f"  {reason}: {count:,}", markup=False)
    for note in summary["notes"]:
        console.print(f"note: {note}", markup=False)


def print_estimate(console: Console, drawn: int, verified: int, found: tuple[float, float, float] | None) -> None:
    """The noise rate (estimate, and both ends of its interval) that a sample tells, as far as it is verified."""
    if found is None:
        text = f"{verified:,} of {drawn:,} rows of the sample are verified; for a noise rate each stratum needs one"
    else:
        rate, low, high = found
        text = f"noise rate by {verified:,} of {drawn:,} rows of the sample: {rate:.3f} ({low:.3f} to {high:.3f}, 95%)"
    console.print(text, markup=False)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
