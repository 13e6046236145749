"""`rayclean convert`: a command for each layout, made of what the registry says of it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from rayclean.cli.common import err, out
from rayclean.convert.layouts import LAYOUTS, Layout, Option

Root = Annotated[str, typer.Argument(metavar="ROOT", help="The data set, in its usual layout.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Where the shards go: a folder or URL.")]
Seed = Annotated[int, typer.Option(help="Seed of the order of the samples.")]
ShardSize = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Most samples per shard; without it 5,000, and about 256 MiB.")
]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; without it one per CPU.")]
MaxMissing = Annotated[int, typer.Option(min=0, metavar="N", help="Listed images of a split that may be missing.")]

WRITES = (
    "Writes OUT/classes.txt for data.classes, and for each split SPLIT-000000.tar and so on: the very bytes of the "
    "images, and one JSON each with its path. The same command continues what was stopped."
)


class Layouts(TyperGroup):
    """Knows its commands only when it is asked: that loads the plug-ins."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all layouts."""
        self._fill()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a layout; None where there is none."""
        self._fill()
        return super().get_command(ctx, cmd_name)

    def _fill(self) -> None:
        for layout in LAYOUTS:
            if layout.name not in self.commands:
                self.commands[layout.name] = _command(layout)


def _command(layout: Layout) -> Any:
    app = typer.Typer(add_completion=False)
    text = escape("\n\n".join(part for part in (f"Convert {layout.meaning}.", layout.details, WRITES) if part))
    app.command(layout.name, help=text, short_help=escape(layout.help))(_function(layout))
    return typer.main.get_command(app)


def _function(layout: Layout) -> Callable[..., None]:
    """What the command does; its signature has the layout's own options too, as Typer reads them from there."""

    def run(
        root: Root,
        out: Out,
        seed: Seed = 0,
        shard_size: ShardSize = None,
        workers: Workers = None,
        max_missing: MaxMissing = 0,
        **given: Any,
    ) -> None:
        from rayclean.convert.samples import Options

        options = Options(seed, shard_size, workers or os.cpu_count() or 1, max_missing)
        convert(layout.name, root, out, given, options)

    shared = [each for each in inspect.signature(run, eval_str=True).parameters.values() if each.name != "given"]
    own = [_parameter(option) for option in layout.options]
    run.__signature__ = inspect.Signature([*shared[:2], *own, *shared[2:]])  # type: ignore[attr-defined]
    return run


def _parameter(option: Option) -> inspect.Parameter:
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    metavar = option.metavar or ("NAME" if option.choices else "TEXT")
    declared = typer.Option(f"--{option.name}", metavar=metavar, help=escape(option.help + choices))
    kind: Any = list[str] | None if option.many else str | None
    default = None if option.many else option.default
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(option.argument, either, default=default, annotation=Annotated[kind, declared])


def convert(layout: str, root: str, output: str, given: dict[str, Any], options: Any) -> None:
    """Writes the shards, and says of each split what is there."""
    from rayclean.convert.command import convert as write
    from rayclean.convert.samples import Source, printable

    for split in write(layout, Source(root, output), given, options, err):
        before = f" ({split.num_before} were there)" if split.num_before else ""
        out.print(f"{split.shards}: {split.num_samples:,} samples in {split.num_shards} shards{before}", markup=False)
        for note in split.notes:
            out.print(f"  {printable(note)}", markup=False)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    group = typer.Typer(cls=Layouts, no_args_is_help=True, help="Write a data set as WebDataset shards.")
    app.add_typer(group, name="convert", subcommand_metavar="LAYOUT ROOT OUT")
