"""The command line: parse, load the config, call; no logic."""

from rayclean.cli.commands import main

__all__ = ["main"]
