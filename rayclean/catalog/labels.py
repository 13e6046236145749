"""Labels as they lie in a sample, and the classes that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rayclean.errors import ConfigError, InputError
from rayclean.schema import NONE_OF_CLASSES
from rayclean.shards.decode import BadSample
from rayclean.shards.opening import open_shard

LabelValue = int | float | str

_NONE = (str(NONE_OF_CLASSES), str(float(NONE_OF_CLASSES)))
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}([.]0*)?")


@dataclass(frozen=True)
class LabelField:
    """Where a sample holds a label.

    Attributes:
        extension: of the member.
        path: fields to follow in its JSON; empty where the member is plain text.
    """

    extension: str
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LabelField:
        """Reads `cls` (or another extension of a plain-text member) or `json:path.to.field`.

        Raises:
            ConfigError: neither.
        """
        extension, colon, path = text.strip().partition(":")
        parts = tuple(path.split(".")) if colon else ()
        if not extension or extension.startswith(".") or "/" in extension or not all(parts):
            raise ConfigError(f"label field '{text}': expected an extension such as cls, or json:path.to.field")
        if colon and extension.lower() != "json":
            raise ConfigError(f"label field '{text}': only json has fields; write json:{path}, or {extension} alone")
        return cls(extension.lower(), parts)

    def read(self, members: Mapping[str, bytes]) -> LabelValue:
        """The label as it is written: text without outer blanks, or the JSON value.

        Args:
            members: content by extension.

        Raises:
            BadSample: `missing_label` (no member, no field, null), or `bad_label` (no text, JSON or scalar).
        """
        if self.extension not in members:
            raise BadSample("missing_label", f"no member .{self.extension}")
        content = members[self.extension]
        try:
            if not self.path:
                return content.decode("utf-8-sig").strip()
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadSample("bad_label", f".{self.extension} cannot be read: {error}") from error
        for field in self.path:
            value = value.get(field) if isinstance(value, dict) else None
        if value is None:
            raise BadSample("missing_label", f"no field {'.'.join(self.path)} in .{self.extension}")
        if not isinstance(value, (int, float, str)):
            raise BadSample("bad_label", f"{'.'.join(self.path)} is {_short(value)}, expected a number or a name")
        return value


@dataclass(frozen=True)
class ClassList:
    """The classes of a run.

    Attributes:
        names: of the classes, by label; `0`, `1`, ... where the config gives only their number.
    """

    names: tuple[str, ...]

    @classmethod
    def load(cls, spec: int | Sequence[str], field: str = "data.classes") -> ClassList:
        """Reads `data.classes`.

        Args:
            spec: number of classes, their names, or the path (or URL) of a file with one name a line.
            field: of the config, for errors.

        Raises:
            ConfigError: no class, an empty name, the same name twice, or no such file.
        """
        if isinstance(spec, int):
            names: Sequence[str] = [str(index) for index in range(spec)]
        else:
            names = _read_names(spec, field) if isinstance(spec, str) else list(spec)
        if not names:
            raise ConfigError(f"{field}: found no class in {spec!r}; give names, a file of names, or a count")
        for index, name in enumerate(names):
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"{field}: class {index} is {name!r}, expected a name (quote it in YAML)")
        if len(set(names)) < len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise ConfigError(f"{field}: {twice!r} is there twice; names must differ")
        return cls(tuple(names))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _digits_are_indexes(self) -> bool:
        """Not where classes are called by numbers of their own: `7` must not mean two things."""
        is_count = self.names == tuple(str(index) for index in range(self.num_classes))
        return is_count or not any(_WHOLE_NUMBER.fullmatch(name) for name in self.names)

    def index_of(self, value: object) -> int:
        """The class that a label names: a name exactly, or a whole number in range, also as text or as 3.0.

        Returns:
            0 .. num_classes - 1.

        Raises:
            BadSample: `bad_label`.
        """
        if isinstance(value, str):
            if value in self._index:
                return self._index[value]
            if self._digits_are_indexes and _WHOLE_NUMBER.fullmatch(value):
                return self._checked(int(value.partition(".")[0]))
        elif isinstance(value, int) and not isinstance(value, bool):
            return self._checked(value)
        elif isinstance(value, float) and value.is_integer():  # false for NaN and infinity
            return self._checked(int(value))
        raise BadSample("bad_label", f"label {_short(value)} is none of the {self.num_classes} classes")

    def truth_of(self, value: object) -> int:
        """As `index_of`; also `NONE_OF_CLASSES`, for -1 (or -1.0, or that as text) where no class is called so.

        Raises:
            BadSample: `bad_label`.
        """
        is_none = value in _NONE and value not in self._index if isinstance(value, str) else value == NONE_OF_CLASSES
        return NONE_OF_CLASSES if is_none else self.index_of(value)

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.num_classes:
            raise BadSample("bad_label", f"label {_short(index)} is out of range: 0 <= label < {self.num_classes}")
        return index


def _read_names(path: str, field: str) -> list[str]:
    try:
        with open_shard(path) as file:
            lines = file.read().decode("utf-8-sig").rstrip().splitlines()
    except (InputError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field}: {error}; expected a file with one name a line, a list or a count") from error
    return [line.strip() for line in lines]


def _short(value: object) -> str:
    """A value of a stranger's file, safe to print."""
    try:
        text = ascii(value)
    except ValueError:  # an int of thousands of digits
        text = "a very long number"
    return text if len(text) <= 60 else f"{text[:60]}..."
