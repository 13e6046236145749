"""The lines of a review's log: which classes there are, and one decision each.

A log names its classes in its first line, and again wherever they have changed since. A decision names the classes
that it is about, so that it means the same after `data.classes` has been put in another order. Logs of earlier releases
have numbers instead: what these stand for is not in the log, see `rayclean.decisions.naming`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from rayclean.errors import InputError
from rayclean.schema import DROPPED

SUFFIX = ".jsonl"

Sample = tuple[str, str]  # shard and key, as the table calls them
Verdict = str | int  # the class that is right, by its name, or `DROPPED`
Natural = Annotated[int, Field(ge=0, lt=2**63)]
# From the classes of a log, None where its lines have numbers, to what the same classes are called now.
NamesNow = Callable[[tuple[str, ...] | None], Sequence[str]]
Label = TypeVar("Label")


class Choice(StrEnum):
    """What a line of a log says of a sample."""

    KEEP = "keep"
    RELABEL = "relabel"
    DROP = "drop"
    UNSURE = "unsure"
    UNDO = "undo"


class Said(BaseModel, Generic[Label]):
    """A decision.

    Attributes:
        row: at the time; another catalog may have the sample at another one.
        given: the given label that the reviewer saw.
        label: the right one, with `relabel`; else None.
        time: when it was decided, ISO 8601 in UTC; for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    row: Natural
    shard: str
    key: str
    given: Label
    decision: Choice
    label: Label | None
    time: str

    @model_validator(mode="after")
    def _label_fits(self) -> Said[Label]:
        if (self.label is not None) != (self.decision == Choice.RELABEL):
            raise ValueError(f"decision {self.decision} with label {self.label}")
        return self

    @property
    def sample(self) -> Sample:
        """What it is about."""
        return self.shard, self.key


class Numbered(Said[Natural]):
    """A line of an earlier release: classes by their places in a list that the log does not have."""


class Entry(Said[str]):
    """A line: classes by name."""

    @property
    def verified(self) -> Verdict | None:
        """What it says is right; None where it says nothing."""
        says = {Choice.KEEP: self.given, Choice.RELABEL: self.label, Choice.DROP: DROPPED}
        return says.get(self.decision)

    def encode(self) -> bytes:
        """The line as it stands in the log."""
        return json.dumps(self.model_dump(mode="json")).encode() + b"\n"


class Classes(BaseModel):
    """The classes, in order, of the lines that follow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> Classes:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is there twice")
        return self

    def encode(self) -> bytes:
        """The line as it stands in the log."""
        return json.dumps({"classes": self.classes}).encode() + b"\n"


def _kind(line: Any) -> str:
    if not isinstance(line, dict):
        return "names"
    return "classes" if "classes" in line else "numbers" if type(line.get("given")) is int else "names"


_LINE: TypeAdapter[Classes | Numbered | Entry] = TypeAdapter(
    Annotated[
        Annotated[Classes, Tag("classes")] | Annotated[Numbered, Tag("numbers")] | Annotated[Entry, Tag("names")],
        Discriminator(_kind),
    ]
)


class Line(NamedTuple):
    """A line as it is written, and its number, from 1."""

    number: int
    content: Classes | Numbered | Entry


def read_lines(data: bytes, name: str) -> tuple[list[Line], int]:
    """The lines of a log, and how many of its bytes they are: what follows is a line that was cut by a crash.

    A last line that lacks nothing but its end counts.

    Raises:
        InputError: another line is none that a review writes.
    """
    lines: list[Line] = []
    start, number = 0, 1
    while start < len(data):
        end = data.find(b"\n", start)
        line = data[start:] if end < 0 else data[start:end]
        try:
            if line.strip():
                lines.append(Line(number, _LINE.validate_json(line, strict=True)))
        except ValidationError as e:
            if end < 0:
                return lines, start
            cause = e.errors()[0]["msg"]
            raise InputError(f"{name}, line {number}: is no decision ({cause}); mend it or remove the line") from e
        start, number = len(data) if end < 0 else end + 1, number + 1
    return lines, start


class Read(NamedTuple):
    """A log that was read.

    Attributes:
        entries: all decisions, oldest first, their classes by the names that they have now.
        whole: how many bytes of it whole lines are.
        classes: that its last lines are about, by the names of then; None where it says nothing of them.
    """

    entries: list[Entry]
    whole: int
    classes: tuple[str, ...] | None


def read_entries(data: bytes, name: str, names_now: NamesNow) -> Read:
    """The decisions of a log.

    Args:
        data: the log.
        name: of the log, for errors.
        names_now: see `rayclean.decisions.naming`.

    Raises:
        InputError: see `read_lines`; or a number is that of no class.
    """
    entries: list[Entry] = []
    classes: tuple[str, ...] | None = None
    now: Sequence[str] = ()
    renamed: dict[str, str] = {}
    lines, whole = read_lines(data, name)
    for number, line in lines:
        if isinstance(line, Classes):
            classes, now = line.classes, names_now(line.classes)
            renamed = dict(zip(classes, now, strict=False))
            continue
        if isinstance(line, Entry):  # one that takes back what an earlier table's classes said may name these
            given, label = renamed.get(line.given, line.given), line.label and renamed.get(line.label, line.label)
        else:
            now = now or names_now(None)
            if max(line.given, line.label or 0) >= len(now):
                raise InputError(
                    f"{name}, line {number}: row {line.row}, key {line.key} of {line.shard}: has class "
                    f"{max(line.given, line.label or 0)} of {len(now)}; mend it or remove the line"
                )
            given, label = now[line.given], None if line.label is None else now[line.label]
        entries.append(Entry.model_validate({**line.model_dump(), "given": given, "label": label}))
    return Read(entries, whole, classes)
