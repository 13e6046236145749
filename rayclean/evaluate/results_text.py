"""What `rayclean export` and `rayclean review` print."""

from __future__ import annotations

from typing import Any

from rich.console import Console


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
