"""Labels as they lie in a sample, and the classes that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from rayclean.config import DataSection
from rayclean.errors import ConfigError, InputError
from rayclean.schema import NONE_OF_CLASSES
from rayclean.shards.decode import BadSample
from rayclean.shards.opening import open_shard

LabelValue = int | float | str

FOLDER = "folder"  # in place of a member: the label is the name of the folder that the sample lies in
_NONE = (str(NONE_OF_CLASSES), str(float(NONE_OF_CLASSES)))
_OUT_OF_RANGE = re.compile(r"label (-?[0-9]+) is out of range: (-?[0-9]+) <= label < (-?[0-9]+)")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}([.]0*)?")


@dataclass(frozen=True)
class LabelField:
    """Where a sample holds a label.

    Attributes:
        extension: of the member; empty where the label is the name of the sample's folder.
        path: fields to follow in its JSON; empty where the member is plain text.
    """

    extension: str
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LabelField:
        """Reads `cls` (or another extension of a text member), `json:path.to.field` or `folder`.

        A member of JSON may have a longer extension, as in `info.json:action.label`.

        Raises:
            ConfigError: none of these.
        """
        extension, colon, path = text.strip().partition(":")
        extension = extension.lower()
        parts = tuple(path.split(".")) if colon else ()
        if not extension or extension.startswith(".") or "/" in extension or not all(parts):
            raise ConfigError(
                f"label field '{text}': expected an extension such as cls, json:path.to.field, or {FOLDER} for the "
                "name of the folder that a sample lies in"
            )
        if colon and extension.rpartition(".")[2] != "json":
            raise ConfigError(f"label field '{text}': only json has fields; write json:{path}, or {extension} alone")
        return cls("" if extension == FOLDER and not colon else extension, parts)

    @property
    def members(self) -> frozenset[str]:
        """Extensions that are read."""
        return frozenset({self.extension} if self.extension else ())

    def read(self, key: str, members: Mapping[str, bytes]) -> LabelValue:
        """The label as it is written: text without outer blanks, or the JSON value.

        Args:
            key: of the sample.
            members: content by extension.

        Raises:
            BadSample: `missing_label` (no folder, member or field, or null), or `bad_label` (no text, JSON, number or
                name).
        """
        if not self.extension:
            return _folder_of(key)
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
        return single(value, ".".join(self.path))


def _folder_of(key: str) -> str:
    folder = key.rpartition("/")[0].rpartition("/")[2].strip()
    if folder in ("", "."):
        raise BadSample("missing_label", "it lies in no folder that could be its label")
    return folder


def single(value: object, where: str) -> LabelValue:
    """A JSON value as one label: a list of one is its member, a name loses outer blanks.

    Raises:
        BadSample: `bad_label`, for what is no number and no name.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and value and all(isinstance(each, (int, float)) for each in value):
        raise BadSample(
            "bad_label",
            f"{where} is a list of {len(value)} numbers; one-hot or probabilities? "
            "Expected one class: write the index of the largest",
        )
    if not isinstance(value, (int, float, str)):
        raise BadSample("bad_label", f"{where} is {_short(value)}, expected a number or a name")
    return value.strip() if isinstance(value, str) else value


@dataclass(frozen=True)
class ClassList:
    """The classes of a run.

    Attributes:
        names: of the classes, by label; numbers from `offset` on where the config gives only how many there are.
        offset: that the numbers in the shards are above labels, which count from 0.
    """

    names: tuple[str, ...]
    offset: int = 0

    @classmethod
    def of(cls, data: DataSection) -> ClassList:
        """The classes of a config; raises as `load`."""
        return cls.load(data.classes, offset=data.label_offset)

    @classmethod
    def load(cls, spec: int | Sequence[str], field: str = "data.classes", offset: int = 0) -> ClassList:
        """Reads `data.classes`.

        Args:
            spec: number of classes, their names, or the path (or URL) of a file of names: one per line, or JSON (a list
                of names, or an object of names and labels, either way round).
            field: of the config, for errors.
            offset: of the numbers in the shards.

        Raises:
            ConfigError: no class, an empty name, the same name twice, or no such file.
        """
        if isinstance(spec, int):
            names: Sequence[str] = [str(offset + index) for index in range(spec)]
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
        return cls(tuple(names), offset)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.names)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _digits_are_indexes(self) -> bool:
        """Not where classes are called by numbers of their own: `7` must not mean two things."""
        is_count = self.names == tuple(str(self.offset + index) for index in range(self.num_classes))
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
            if (told := _json_of(value)) is not None:
                return self.index_of(single(told, "label"))
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

    def written(self, label: int, old: object) -> object:
        """How a label is written in place of another one: by name or by number, as that was.

        Args:
            label: the new one.
            old: as it is written in a text or in JSON.

        Raises:
            ValueError: that is no label.
        """
        if isinstance(old, list):
            return [self.written(label, each) for each in old]
        if not isinstance(old, (int, float, str)):
            raise ValueError(f"{type(old).__name__} is no label")
        is_name = isinstance(old, str) and old.strip() in self._index
        return self.names[label] if is_name else type(old)(label + self.offset)

    def _checked(self, number: int) -> int:
        if not 0 <= number - self.offset < self.num_classes:
            low, high = self.offset, self.offset + self.num_classes
            raise BadSample("bad_label", f"label {_short(number)} is out of range: {low} <= label < {high}")
        return number - self.offset


def num_past_last(texts: Iterable[str]) -> int:
    """How many labels were refused that are the first number past the last class, by what their quarantine says."""
    found = (_OUT_OF_RANGE.fullmatch(text) for text in texts)
    return sum(match is not None and match[1] == match[3] for match in found)


def one_based_hint(num_classes: int, offset: int) -> str:
    """What to say of labels that count from one more than they should.

    Args:
        num_classes: K.
        offset: that was subtracted.
    """
    low, high = offset + 1, offset + num_classes
    return f"labels {low}..{high}: class {offset} is empty and {high} is out of range; set data.label_offset: {low}"


def _json_of(text: str) -> object:
    """What a text says that is a list or a text in JSON, None for any other."""
    if not text.startswith(("[", '"')):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_names(path: str, field: str) -> list[str]:
    try:
        with open_shard(path) as file:
            text = file.read().decode("utf-8-sig")
    except (InputError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field}: {error}; expected a file with one name per line, a list or a count") from error
    if text.lstrip().startswith(("[", "{")):
        return _names_of_json(text, f"{field}: {path}")
    return [line.strip() for line in text.rstrip().splitlines()]


def _names_of_json(text: str, where: str) -> list[str]:
    """Names in a list, or in an object of names and labels either way round."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: is not JSON ({error}); expected a list of names, or one name per line") from error
    return list(_ordered(found, where) if isinstance(found, dict) else found)


def _ordered(found: Mapping[str, object], where: str) -> list[object]:
    """The names of an object that has labels by name, or names by label."""
    by_name = all(isinstance(label, int) and not isinstance(label, bool) for label in found.values())
    pairs = [(label, name) if by_name else (name, label) for name, label in found.items()]
    numbers = {int(str(label)): name for label, name in pairs if re.fullmatch("[0-9]{1,9}", str(label))}
    labels = sorted(numbers)
    if len(labels) < len(found) or any(b - a != 1 for a, b in pairwise(labels)):
        raise ConfigError(f'{where}: expected names and labels without a gap, as in {{"cat": 0, "dog": 1}}')
    return [numbers[label] for label in labels]


def _short(value: object) -> str:
    """A value of a stranger's file, safe to print."""
    try:
        text = ascii(value)
    except ValueError:  # an int of thousands of digits
        text = "a very long number"
    return text if len(text) <= 60 else f"{text[:60]}..."
