"""Registries: what a config or an option chooses by its name, one object each, ours and those of plug-ins.

A registration is light: a name, a line for people, and where the function lies. The function's module is imported when
it is used. So a config is checked and a help is shown without torch and Ray, layers below may ask for a name, and a job
that holds the object finds the function on its worker, whether that has seen the registration or not.
"""

from __future__ import annotations

import functools
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from rayclean.errors import ConfigError

GROUP = "rayclean.plugins"  # of the entry points by which installed packages name modules that register
_NAME = re.compile("[a-z][a-z0-9_]*")  # names are parts of files' names


@dataclass(frozen=True)
class Entry:
    """What can be chosen by its name.

    Attributes:
        name: as it is written in a config or an option: a-z, 0-9 and _.
        meaning: a line for people, as the help of the command shows it.
        function: what does it, or where that lies: `package.module:function`. What workers run is found by them under
            this name too; a function itself is for notebooks, and is sent along.
    """

    name: str
    meaning: str
    function: Callable[..., Any] | str

    def load(self) -> Callable[..., Any]:
        """The function; imports its module.

        Raises:
            ConfigError: it is not there.
        """
        if not isinstance(self.function, str):
            return self.function
        try:
            found: Callable[..., Any] = pkgutil.resolve_name(self.function)
        except (ImportError, AttributeError, ValueError) as e:
            raise ConfigError(
                f"{self.name}: its function {self.function} cannot be loaded here ({e}); install its package on every "
                "machine of the cluster, or mend the name in its registration"
            ) from e
        return found

    @property
    def help(self) -> str:
        """What a help says of it."""
        return self.meaning

    @property
    def module(self) -> str:
        """Where the function lies."""
        if isinstance(self.function, str):
            return self.function.partition(":")[0]
        return str(getattr(self.function, "__module__", "an unknown module"))


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries of one kind, ours first, in the order in which they were registered.

    Plug-ins are loaded when a registry is first read, not when it is made or added to.

    Args:
        field: of the config, or the option, that chooses, for errors.
        noun: what an entry is called, for errors.
        ours: what rayclean has.
    """

    def __init__(self, field: str, noun: str, ours: Iterable[E]) -> None:
        self.field, self.noun = field, noun
        self._entries: dict[str, E] = {}
        for entry in ours:
            self.register(entry)

    def register(self, entry: E) -> E:
        """Adds an entry, and returns it. A cell of a notebook that runs again puts its new one in the old one's place.

        Raises:
            ConfigError: the name is taken, or cannot be one.
        """
        self.check_name(self.noun, entry.name)
        old = self._entries.get(entry.name)
        if old is not None and not old.module == entry.module == "__main__":
            raise ConfigError(
                f"{self.noun} {entry.name} of {entry.module} is there already, of {old.module}; choose another name"
            )
        self._entries[entry.name] = entry
        return entry

    @staticmethod
    def check_name(noun: str, name: str) -> None:
        """Refuses what cannot be a name.

        Raises:
            ConfigError: it cannot.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{noun} {name!r}: a name of a-z, 0-9 and _ expected")

    def __iter__(self) -> Iterator[E]:
        load_plugins()
        return iter(self._entries.values())

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(entry.name for entry in self)

    def get(self, name: str) -> E:
        """The entry of a name.

        Raises:
            ConfigError: there is none; says which there are.
        """
        try:
            return self._entries[self.check(name)]
        except ValueError as e:
            raise ConfigError(f"{self.field} {name}: {e}") from None

    def check(self, name: str) -> str:
        """The name itself; a validator of fields.

        Raises:
            ValueError: there is no entry of the name; says which there are.
        """
        names = self.names()
        if name not in names:
            raise ValueError(f"no such {self.noun}; there are {', '.join(names)}")
        return name


@functools.cache
def load_plugins() -> None:
    """Imports the modules that installed packages name under the group `rayclean.plugins`, in order of their names.

    Raises:
        ConfigError: one cannot be imported, or registers what cannot be.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except Exception as e:
            package = point.dist.name if point.dist else "an unknown package"
            raise ConfigError(
                f"plug-in {point.name} ({point.value}, of {package}) cannot be loaded: {e or type(e).__name__}; "
                "mend it or uninstall its package"
            ) from e
