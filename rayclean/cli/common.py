"""What all commands share: where they print, their usual arguments, and the config of a run that was started."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from rayclean.config.reference import Sections
from rayclean.config.registry import Registry

width = None if sys.stdout.isatty() else 160  # files have no width
out = Console(soft_wrap=True, highlight=False, emoji=False, width=width)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.field=value ...]", help="Replace fields.")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="The folder or URL of a run (run.dir).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let Ray speak.")]


def listing(*registries: Registry[Any] | Sections) -> type[TyperCommand]:
    """A kind of command whose help ends with what these registries, or the config's sections, hold."""

    class Listing(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Asks the registries only now: that loads the plug-ins."""
            super().format_help(ctx, formatter)
            for registry in registries:
                lines = Table.grid(padding=(0, 2))
                for entry in registry:
                    lines.add_row(Text(entry.name), Text(entry.help))
                Console(highlight=False).print(
                    Panel(lines, title=registry.field, title_align="left", border_style="dim")
                )

    return Listing


def beginning(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell completes an option's value to: the names that begin as it does."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def all_stages() -> tuple[str, ...]:
    """What `--until` may be."""
    from rayclean.run.grow import stages

    return stages()


class Lines(logging.Handler):
    """Prints what is logged to stderr, one line each, above the bars that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        err.print(self.format(record), markup=False)


def print_json(value: Any) -> None:
    """To stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
