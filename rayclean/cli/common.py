"""What all commands share: where they print, their usual arguments, and the config of a run that was started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from rayclean.config import Config, parse_config, parse_yaml, without_retired
from rayclean.config.registry import Registry
from rayclean.config.secrets import refuse_secrets
from rayclean.errors import InputError, RaycleanError
from rayclean.storage.store import Store

width = None if sys.stdout.isatty() else 160  # files have no width
out = Console(soft_wrap=True, highlight=False, emoji=False, width=width)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.field=value ...]", help="Replace fields.")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="The folder or URL of a run (run.dir).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let Ray speak.")]


def listing(*registries: Registry[Any]) -> type[TyperCommand]:
    """A kind of command whose help ends with what these registries hold."""

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


def load_run(folder: str) -> Config:
    """The config of the last start of a run, which lies where it is now and not where it was then.

    Args:
        folder: of the run, or its URL.

    Raises:
        ConfigError: the URL may carry credentials.
        InputError: there is no run, or it cannot be read.
    """
    refuse_secrets(folder, "RUN")
    store, name = Store(folder), "config.yaml"
    try:
        tree, lines = parse_yaml(store.read(name), f"{folder}/{name}", room=2)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder} holds no run (no {name}); give the run.dir of a config that was started"
        raise InputError(message) from None
    except RaycleanError:
        raise
    except Exception as error:  # each store has its own exceptions, few of them OSError
        raise InputError(f"{folder}: {name} cannot be read: {error or type(error).__name__}") from error
    if isinstance(tree.get("run"), dict):
        tree["run"] = {**tree["run"], "dir": folder}
    return parse_config(without_retired(tree), f"{folder}/{name}", lines)


def print_json(value: Any) -> None:
    """To stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
