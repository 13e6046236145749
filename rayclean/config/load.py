"""The config's file: YAML, `${NAME}`, `$NAME` and `~` as a shell has them, `section.field=value` beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rayclean.config.explain import explain
from rayclean.config.secrets import refuse_secrets
from rayclean.config.tree import Config
from rayclean.errors import ConfigError

_BRACED = re.compile(r"\$\{(\w+)\}")
# Where a part of a path begins: elsewhere a dollar or a tilde is a character like others.
_BARE = re.compile(r"(?:(?<=[/:])|\A)\$([A-Za-z_]\w*)")
_HOME = re.compile(r"(\A|(?<=\Afile:)|(?<=\Aclip-retrieval:))~(?=/|\Z)")


def _expand(value: Any) -> Any:
    """Replaces `${NAME}` in strings by the environment's value, `$NAME` where there is one, and `~` by the home folder.

    Raises:
        ConfigError: the environment has no `${NAME}`.
    """
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"the config uses ${{{name}}}, but the environment has no {name}; export it first")
        return os.environ[name]

    found = _BRACED.sub(lookup, value)
    found = _BARE.sub(lambda match: os.environ.get(match[1], match[0]), found)
    return _HOME.sub(lambda match: os.path.expanduser("~"), found)


OLD_POOLS = ("catalog", "score", "merge")  # of `resources`
Lines = Mapping[tuple[str | int, ...], int]  # of each place in a config: sections, fields, positions in lists


def parse_yaml(text: bytes, source: str, room: int = 1) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """The sections of a config's text, and the line of each of its values.

    Args:
        text: UTF-8.
        source: for errors.
        room: see `read_yaml`; a run's own file has what was given and all defaults.

    Raises:
        ConfigError: it is no text, not YAML, has something twice or too much of it, or no sections.
    """
    from rayclean.config.yaml_text import YamlMistake, read_yaml  # not at the top: see there

    try:
        tree, lines = read_yaml(text.decode("utf-8"), room)
    except UnicodeDecodeError as e:
        raise ConfigError(f"{source}: is not a text file: {e}") from e
    except YamlMistake as e:
        raise ConfigError(f"{source}: line {e.line}: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected sections (run, data, ...), found {type(tree).__name__}")
    return tree, lines


def _override(tree: dict[str, Any], override: str) -> tuple[str, ...]:
    """Puts `section.field=value` in, and returns the place."""
    from rayclean.config.yaml_text import YamlMistake, read_yaml

    name, sep, text = override.partition("=")
    refuse_secrets(text, name)  # before an error repeats it
    parts = name.strip().split(".")
    if not sep or not all(parts):
        raise ConfigError(f"'{override}' is not an override; write section.field=value")
    for part in parts[:-1]:
        child = tree.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"'{override}': {part} is not a section")
        tree = child
    try:
        tree[parts[-1]] = read_yaml(text)[0] if text else None
    except YamlMistake as e:
        raise ConfigError(f"'{override}': the value {e}") from e
    return tuple(parts)


def _line_of(error: Mapping[str, Any], lines: Lines) -> str:
    """`line 3: ` where an error's place, or the section around it, is in the file; empty where it is not."""
    place = tuple(error["loc"])
    if not place:  # of what must fit between sections; the text begins with a field, or has its full name
        names = re.findall(r"^(\w+):|(\w+(?:\.\w+)+)", str(error["msg"]).removeprefix("Value error, "))
        found = (tuple((first or full).split(".")) for first, full in names)
        place = next((name for name in found if name in lines), ())
    inside = (place[:length] for length in range(len(place), 0, -1))
    line = next((lines[part] for part in inside if part in lines), 0)
    return f"line {line}: " if line else ""


def parse_config(tree: Mapping[str, Any], source: str = "config", lines: Lines | None = None) -> Config:
    """Checks a tree of plain values.

    Args:
        tree: sections by name.
        source: for errors.
        lines: of each place in the source; 0 for one that is not in it.

    Raises:
        ConfigError: unknown or missing fields, values out of range, contradictions, all of them at once; or a URL
            that carries credentials.
    """
    values = _expand(dict(tree))
    refuse_secrets(values)
    try:
        return Config.model_validate(values)
    except ValidationError as e:
        said = dict.fromkeys(_line_of(error, lines or {}) + explain(error, Config) for error in e.errors())
        raise ConfigError(f"{source}: " + "; ".join(said)) from e


def without_retired(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own config, which has all fields, without those of earlier releases that changed no result."""
    kept = dict(tree)
    if isinstance(kept.get("resources"), dict):
        kept["resources"] = {name: pool for name, pool in kept["resources"].items() if name not in OLD_POOLS}
    for section in ("iofm", "inn"):
        if isinstance(kept.get(section), dict) and not kept[section].get("rounds"):
            kept[section] = {name: value for name, value in kept[section].items() if name != "rounds"}
    return kept


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file and applies `section.field=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, or the config is wrong.
    """
    from rayclean.config.yaml_text import MAX_CHARACTERS

    try:
        with open(path, "rb") as file:
            text = file.read(4 * MAX_CHARACTERS + 1)  # as many characters at least; a device has no end
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from e
    tree, lines = parse_yaml(text, str(path))
    for override in overrides:
        lines[_override(tree, override)] = 0
    return parse_config(tree, str(path), lines)


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """The same with `section.field=value` overrides.

    Raises:
        ConfigError: an override is none, or the result is wrong.
    """
    tree = dump_config(config)
    for override in overrides:
        _override(tree, override)
    return parse_config(tree)


def dump_config(config: Config) -> dict[str, Any]:
    """The config as plain values that `parse_config` reads back."""
    return config.model_dump(mode="json", by_alias=True)
