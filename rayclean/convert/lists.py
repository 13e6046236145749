"""Lists of images, one line each: read with an error that names the line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rayclean.convert.files import extension_of
from rayclean.convert.samples import IMAGE_EXTENSIONS
from rayclean.errors import InputError

T = TypeVar("T")


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, without outer blanks, each with `file:number` for errors.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}; expected a file of the official layout, check the folder"
        ) from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def read_labels(file: Path, num_classes: int) -> Iterator[tuple[str, str, int]]:
    """Lines `image label`: where each is (for errors), its path, its label.

    Args:
        file: the list.
        num_classes: K; labels are 0..K-1.

    Raises:
        InputError: a line of another form, a label that is no class, a path as of `check_path`.
    """
    for at, line in read_lines(file):
        path, label = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
        if not label.isdecimal():
            raise InputError(f"{at}: found {line[:80]!r}, expected `image label`; fetch the file again")
        if int(label) >= num_classes:
            raise InputError(f"{at}: found label {label}, expected 0..{num_classes - 1}; check the file of class names")
        yield at, check_path(at, path), int(label)


def check_path(at: str, path: str) -> str:
    """The path of an image in a list, normalised.

    Raises:
        InputError: it leaves the data set's folder, or is that of no image.
    """
    normal = os.path.normpath(path.strip()).replace(os.sep, "/")
    if os.path.isabs(normal) or normal.split("/")[0] == "..":
        raise InputError(f"{at}: found {path[:80]!r}, expected a path in the data set's folder; fetch the list again")
    if extension_of(normal) not in IMAGE_EXTENSIONS:
        raise InputError(f"{at}: found {path[:80]!r}, expected a {', '.join(IMAGE_EXTENSIONS)} file; check the list")
    return normal


def collect(entries: Iterable[tuple[str, str, T]]) -> tuple[dict[str, T], list[str]]:
    """What a list says of each path, and a note where lines are there again.

    Args:
        entries: where a line is, its path, and what it says.

    Raises:
        InputError: two lines say different things of a path.
    """
    found: dict[str, T] = {}
    again = 0
    for at, path, said in entries:
        if found.setdefault(path, said) != said:
            raise InputError(f"{at}: found {said} for {path}, but {found[path]} further up; keep one of these lines")
        again += 1
    again -= len(found)
    return found, [f"{again:,} lines are there twice"] if again else []
