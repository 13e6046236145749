"""The command as its user gives it."""

from __future__ import annotations

from pathlib import Path

from rayclean.cli.commands import app


def convert(layout: str, root: Path | str, out: Path | str, *more: str) -> None:
    """Runs `rayclean convert LAYOUT ROOT OUT ...` here, with one worker where `more` says none; raises its errors."""
    app(["convert", layout, str(root), str(out), "--workers", "1", *more], standalone_mode=False)
