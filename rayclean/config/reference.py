"""What each field of a config is: its name, type, default and meaning, as they stand beside the field.

`docs/config.md` is what `python -m rayclean.config.reference` prints; `rayclean fields` shows the same on a terminal.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rayclean.config.explain import nearest
from rayclean.config.learn_section import DIVIDEMIX_ON_FEATURES
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS
from rayclean.config.registry import Entry, Registry
from rayclean.config.score_families import FAMILIES
from rayclean.config.train_section import ADAMW, HEADS
from rayclean.config.tree import Config
from rayclean.errors import ConfigError

REGISTRIES: tuple[Registry[Any], ...] = (FAMILIES, NOISE_KINDS, IMBALANCES)
# Defaults that depend on another setting, by section.
OTHERWISE: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "train": (("on features", HEADS), ("with `adamw`", ADAMW)),
    "learn.dividemix": (("on features", DIVIDEMIX_ON_FEATURES),),
}
_WORDS = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", Any: "value"}
_HUGE = 2**31  # a bound from here on says nothing to people


@dataclass(frozen=True)
class FieldLine:
    """A field, in words.

    Attributes:
        name: as it is written in a section.
        kind: what may be given.
        default: as YAML has it, `required`, or empty where nothing is set.
        meaning: what it does, in one paragraph.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class SectionLines:
    """A section, in words.

    Attributes:
        names: where it may stand, such as `learn.rank`; several where several places hold the same fields.
        meaning: what it is for; paragraphs.
        fields: all of them; those that hold a section themselves say so.
    """

    names: tuple[str, ...]
    meaning: tuple[str, ...]
    fields: tuple[FieldLine, ...]

    @property
    def name(self) -> str:
        """All places, for titles."""
        return ", ".join(self.names)

    @property
    def help(self) -> str:
        """Its meaning in a sentence."""
        return self.meaning[0]


class Sections:
    """The sections that lie in no other, as a list for a help; see `rayclean.cli.common.listing`."""

    field = "section.field=value (rayclean fields SECTION has the fields)"

    def __iter__(self) -> Iterator[SectionLines]:
        return (section for section in sections() if section.name and "." not in section.name)


def sections(root: type[BaseModel] = Config) -> list[SectionLines]:
    """All sections in their order, each before those in it; that of fields outside of all sections last, as ``."""
    found: dict[type[BaseModel], list[str]] = {}
    _visit(root, "", found)
    models = [*(model for model in found if model is not root), root]
    return [_lines(model, tuple(found[model])) for model in models]


def _visit(model: type[BaseModel], name: str, found: dict[type[BaseModel], list[str]]) -> None:
    found.setdefault(model, []).append(name)
    for key, field in model.model_fields.items():
        if (inner := _section_of(field)) is not None:
            _visit(inner, f"{name}.{key}".strip("."), found)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _lines(model: type[BaseModel], names: tuple[str, ...]) -> SectionLines:
    fields = tuple(
        _line(field.alias or key, field, OTHERWISE.get(names[0], ()))
        for key, field in model.model_fields.items()
        if names[0] or _section_of(field) is None
    )
    paragraphs = (model.__doc__ or "").split("\n\n")
    return SectionLines(names, tuple(" ".join(each.split()) for each in paragraphs), fields)


def _line(name: str, field: FieldInfo, otherwise: Sequence[tuple[str, dict[str, Any]]]) -> FieldLine:
    meaning = " ".join((field.description or "").split())
    if _section_of(field) is not None:
        return FieldLine(name, "section", "", meaning)
    kind = kind_of(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)
    default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
    others = [f"{_value(values[name])} {when}" for when, values in otherwise if name in values]
    return FieldLine(name, kind, "; ".join([default, *others]), meaning)


def _value(value: Any) -> str:
    """A default as YAML has it; empty for none."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    is_large = isinstance(value, int) and value >= 2**30
    return f"`{text}`" + (f" ({value / 2**30:g} GiB)" if is_large and value % 2**30 == 0 else "")


def kind_of(annotation: Any) -> str:
    """What a field of a type may be given, in words: `whole number > 0`, `list of text`, or the values themselves."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return f"{kind_of(inside[0])} {_bounds(inside[1:])}".strip()
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(each) for each in inside if each is not type(None))
    if origin is list:
        return f"list of {kind_of(inside[0])}"
    if origin is tuple:
        return f"{len(inside)} of {kind_of(inside[0])}"
    return "fields" if origin is dict else _WORDS[annotation]


def _bounds(metadata: Sequence[Any]) -> str:
    """`0 to 1`, `> 0`, `>= 2, <= 100`; empty where nothing is bounded."""
    bounds = {
        name: getattr(each, name) for each in _flat(metadata) for name in ("gt", "ge", "lt", "le") if _has(each, name)
    }
    if {"ge", "le"} == set(bounds):
        return f"{bounds['ge']:g} to {bounds['le']:g}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return ", ".join(f"{signs[name]} {bound:g}" for name, bound in bounds.items())


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _has(bound: Any, name: str) -> bool:
    value = getattr(bound, name, None)
    return value is not None and abs(value) < _HUGE


def find(name: str) -> SectionLines:
    """A section by its name; by `section.field`, with that field alone.

    Raises:
        ConfigError: there is none of the name; names the nearest.
    """
    known = {place: section for section in sections() for place in section.names}
    section = name.rpartition(".")[0]
    if name in known and name:
        return known[name]
    fields = {f"{place}.{line.name}".strip("."): line for place, each in known.items() for line in each.fields}
    if name not in fields:
        raise ConfigError(f"{name}: no such section or field{nearest(name, [*filter(None, known), *fields])}")
    return replace(known[section], names=(section,), meaning=(), fields=(fields[name],))


def kinds_of(section: SectionLines) -> list[Registry[Any]]:
    """The registries from which fields of a section choose."""
    names = {f"{place}.{line.name}".strip(".") for place in section.names for line in section.fields}
    return [registry for registry in REGISTRIES if registry.field in names]


HEAD = """# The fields of a config

Made by `python -m rayclean.config.reference` from `rayclean/config/`, where each field's words stand beside it; a test
compares. `rayclean fields` shows the same on a terminal, what plug-ins have registered included.

A field is written in YAML below its section, or on the command line as `section.field=value`, which wins; `field=`
sets nothing. `${NAME}` is the environment's value. Unknown fields, and fields that contradict each other, end a command
with the nearest valid name and the line, before anything is read. An empty default means that nothing is set.
"""


def markdown() -> str:
    """All sections as `docs/config.md` has them, without what plug-ins have registered."""
    return "\n".join([HEAD, *("\n".join(_markdown_of(section)) for section in sections())])


def _markdown_of(section: SectionLines) -> Iterator[str]:
    yield f"## {section.name or 'Outside of the sections'}\n"
    for paragraph in section.meaning:
        yield f"{paragraph}\n"
    yield "| field | value | default | |\n|---|---|---|---|"
    for line in section.fields:
        meaning = line.meaning.replace("|", "\\|")
        yield f"| `{line.name}` | {line.kind} | {line.default} | {meaning} |"
    yield ""
    for registry in kinds_of(section):
        yield f"What `{registry.field}` may name:\n\n| | |\n|---|---|"
        for entry in registry:
            if entry.module.startswith("rayclean."):
                meaning = entry.meaning.replace("|", "\\|")
                yield f"| {_names_of(entry)} | {meaning} |"
        yield ""


def _names_of(entry: Entry) -> str:
    scores = getattr(entry, "scores", ())
    return ", ".join(f"`{name}`" for name in ([score.name for score in scores] or [entry.name]))


if __name__ == "__main__":
    sys.stdout.write(markdown())
