"""What is wrong with a config, in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

RENAMED = {
    "resources.catalog": "resources.cpu",
    "resources.merge": "resources.cpu",
    "resources.score": "resources.gpu where networks run on GPUs, else resources.cpu",
}


def nearest(name: str, valid: Sequence[str]) -> str:
    """The end of a refusal: the valid name that was probably meant, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(sorted(valid))}"


def _valid_fields(root: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names that are valid at the place where an unknown field was found."""
    model = root
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def explain(error: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One of pydantic's errors in our words, with the nearest valid name for an unknown field of `root`."""
    location = [part for part in error["loc"] if isinstance(part, str)]
    where = ".".join(location)
    if error["type"] == "extra_forbidden":
        if where in RENAMED:
            return f"{where}: is {RENAMED[where]} now"
        return f"{where}: unknown field{nearest(location[-1], _valid_fields(root, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where}: required, but not set"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message} (found {error['input']!r})" if where else message
