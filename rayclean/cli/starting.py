"""`rayclean init`: four questions, or as many options, and a config that the checks of `rayclean doctor` have seen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.text import Text

from rayclean.cli.common import err, out
from rayclean.config.secrets import refuse_secrets
from rayclean.errors import ConfigError, RaycleanError

if TYPE_CHECKING:  # loaded when it is asked for
    from rayclean.inspect.draft import Answers
    from rayclean.inspect.first_look import FirstLook

Value = TypeVar("Value")
New = Annotated[Path, typer.Argument(metavar="[CONFIG]", help="The file to write.")]
Shards = Annotated[str | None, typer.Option(metavar="PATTERN", help="Where they are: a glob, {000..099}, a URL.")]
Label = Annotated[
    str | None, typer.Option(metavar="FIELD", help="Where labels lie: cls or the like, json:path.to.field, folder.")
]
Classes = Annotated[
    str | None, typer.Option(metavar="CLASSES", help="How many, names with commas between them, or a file of names.")
]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="frozen: pretrained, looks once at each image; features: embeddings that are there (or file:PATTERN, "
        "clip-retrieval:FOLDER); nothing: trained from nothing.",
    ),
]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="The network, as model.name has it.")]
Dir = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Folder or URL; else runs/ and CONFIG's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing: take what is proposed where no option says otherwise.")]


@dataclass(frozen=True)
class Given:
    """What options say; None where they do not.

    Attributes:
        asks: whether there is somebody to be asked for the rest.
    """

    shards: str | None
    label: str | None
    classes: str | None
    network: str | None
    asks: bool


def init(
    config: New = Path("rayclean.yaml"),
    shards: Shards = None,
    label: Label = None,
    classes: Classes = None,
    network: Network = None,
    model: Model = None,
    run_dir: Dir = None,
    yes: Yes = False,
) -> None:
    """Look at the shards, ask four questions, write a config, and check it."""
    if config.exists():
        raise ConfigError(f"{config} is there already, and stays as it is; name another: rayclean init OTHER.yaml")
    if not config.absolute().parent.is_dir():
        raise ConfigError(f"{config}: there is no folder {config.parent}; make it, or name another file")
    from rayclean.inspect.draft import draft

    given = Given(shards, label, classes, network, sys.stdin.isatty() and not yes)
    answers, look = _answers(given, model, run_dir or f"runs/{config.stem}")
    text, loaded = draft(answers, look)
    config.write_text(text, encoding="utf-8")
    out.print(Text(text))
    from rayclean.inspect.doctor import examine  # loads Ray
    from rayclean.report.run_text import print_findings

    if print_findings(out, examine(loaded)):
        raise ConfigError(f"{config} is written, but its run would fail: mend that, then rayclean doctor {config}")
    out.print(Text(f"{config} is written and checked; begin with: rayclean run {config}"))


def _answers(given: Given, model: str | None, run_dir: str) -> tuple[Answers, FirstLook]:
    """What options or people say, and the look that proposes what they do not say."""
    from rayclean.inspect import draft
    from rayclean.inspect.first_look import look_at_shards

    def seen(text: str) -> tuple[str, FirstLook]:
        refuse_secrets(text, "data.shards")
        return text.strip(), look_at_shards(text.strip())

    asked = "Where are the shards (a glob, {000..099}, a URL)?"
    shards, look = _answer("shards", given.shards, None, seen, given.asks, asked)
    found = [place.field for place in look.places]
    asked = f"Where do the labels lie ({'possible: ' + ', '.join(found) if found else 'nothing looks like labels'})?"
    proposed = (look.label.field, look.label.field) if look.label else None
    label = _answer("label", given.label, proposed, draft.parse_label, given.asks, asked)
    place = look.place(label)
    fits = draft.propose_classes(look, place)
    asked = "Which classes (how many, names with commas between them, or a file of names)?"
    shown = None if fits is None else (draft.shown(fits), fits)
    classes = _answer("classes", given.classes, shown, draft.parse_classes, given.asks, asked)
    asked = "Which network (frozen: pretrained, features: embeddings that are there, nothing: trained from nothing)?"
    kind = draft.propose_network(look)
    network = _answer("network", given.network, (kind, kind), draft.network_reader(look), given.asks, asked)
    offset = draft.offset_of(place, classes)
    return draft.Answers(shards, label, classes, offset, network, model, run_dir), look


def _answer(
    option: str,
    given: str | None,
    proposal: tuple[str, Value] | None,
    read: Callable[[str], Value],
    asks: bool,
    question: str,
) -> Value:
    """One answer.

    Args:
        option: that gives it too.
        given: by that; None where it was not.
        proposal: as it is shown, and what it stands for; None where there is none.
        read: what an answer says; raises where it cannot be right.
        asks: whether there is somebody to be asked, and asked again.
        question: to them.

    Raises:
        ConfigError: nothing says it.
        RaycleanError: what the option says cannot be right.
    """
    if given is not None:
        return read(given)
    if not asks:
        if proposal is None:
            raise ConfigError(f"--{option} is missing, and what was seen does not tell. {question}")
        return proposal[1]
    while True:
        text = typer.prompt(question, default=proposal and proposal[0], prompt_suffix="\n> ")
        if proposal is not None and text == proposal[0]:
            return proposal[1]
        try:
            return read(text)
        except RaycleanError as e:
            err.print(Text(f"{e}", style="red"))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(init)
