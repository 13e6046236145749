"""The command that says what each field of a config is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from rayclean.cli.common import out
from rayclean.config.reference import SectionLines, find, kinds_of, sections


def fields(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SECTION | SECTION.FIELD ...]", help="Such as train, or train.lr.")
    ] = None,
) -> None:
    """Say what the fields of a config mean, what they may be, and their defaults."""
    if not names:
        _print_rows([(section.name, section.help) for section in sections() if section.name])
        out.print("\nrayclean fields SECTION shows its fields; scores is a field outside of the sections", markup=False)
        return
    for section in [find(name) for name in names]:
        _print_section(section)


def _print_section(section: SectionLines) -> None:
    for paragraph in section.meaning:
        out.print(paragraph, markup=False)
    for line in section.fields:
        name = ".".join(filter(None, (section.names[0], line.name)))
        default = f", default {line.default}" if line.default not in ("", "required") else ""
        required = ", required" if line.default == "required" else ""
        out.print(f"\n{name}: {line.kind}{default}{required}".replace("`", ""), markup=False)
        out.print(f"    {line.meaning}", markup=False)
    for registry in kinds_of(section):
        out.print(f"\n{registry.field} may be", markup=False)
        _print_rows([(entry.name, entry.help) for entry in registry])


def _print_rows(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, meaning in rows:
        table.add_row(Text(name), Text(meaning))
    out.print(table)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(fields)
