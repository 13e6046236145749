"""The config's file: YAML, `${NAME}` from the environment, `section.field=value` from the command line."""

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


def _expand(value: Any) -> Any:
    """Replaces `${NAME}` in strings by the environment's value."""
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

    return re.sub(r"\$\{(\w+)\}", lookup, value)


def _yaml(text: str) -> Any:
    """YAML's values.

    Raises:
        ValueError: it is none.
    """
    import yaml  # not at the top: who has a config in memory needs no YAML

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from e


def _apply_override(tree: dict[str, Any], override: str) -> None:
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
        tree[parts[-1]] = _yaml(text) if text else None
    except ValueError as e:
        raise ConfigError(f"'{override}': the value is not YAML: {e}") from e


def parse_config(tree: Mapping[str, Any], source: str = "config") -> Config:
    """Checks a tree of plain values.

    Raises:
        ConfigError: unknown or missing fields, values out of range, contradictions, all of them at once; or a URL
            that carries credentials.
    """
    values = _expand(dict(tree))
    refuse_secrets(values)
    try:
        return Config.model_validate(values)
    except ValidationError as e:
        lines = dict.fromkeys(explain(error, Config) for error in e.errors())
        raise ConfigError(f"{source}: " + "; ".join(lines)) from e


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file and applies `section.field=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, or the config is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is not a text file: {e}") from e
    try:
        tree = _yaml(text)
    except ValueError as e:
        raise ConfigError(f"{path}: is not YAML: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (run, data, ...), found {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, str(path))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """The same with `section.field=value` overrides.

    Raises:
        ConfigError: an override is none, or the result is wrong.
    """
    tree = dump_config(config)
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree)


def dump_config(config: Config) -> dict[str, Any]:
    """The config as plain values that `parse_config` reads back."""
    return config.model_dump(mode="json", by_alias=True)
