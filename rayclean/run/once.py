"""Jobs are made once: two that read the same job hold the same object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def once(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method that remembers, in its object, what it gave for the same arguments, which can be hashed."""

    @functools.wraps(method)
    def remembered(of: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        made: dict[Any, T] = vars(of).setdefault("_made", {})
        key = method.__name__, args, tuple(kwargs.items())
        if key not in made:
            made[key] = method(of, *args, **kwargs)
        return made[key]

    return remembered
