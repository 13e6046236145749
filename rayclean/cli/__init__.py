"""The command line: parse, load the config, call; no logic."""

from rayclean.interrupts import handle, leave_at_once

__all__ = ["main"]


def main() -> None:
    """Entry point; see `commands.main`. An interrupt while the commands are imported shows no traceback."""
    handle(leave_at_once)
    from rayclean.cli import commands

    commands.main()
