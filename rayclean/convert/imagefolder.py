"""Image files, one folder per class, as torchvision's ImageFolder has them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from rayclean.convert.files import extension_of, find_files
from rayclean.convert.samples import IMAGE_EXTENSIONS, Facts, Found, Source
from rayclean.errors import InputError


def imagefolder(source: Source, split: str, classes: str | None) -> Found:
    """The images of the folder, and its classes.

    Args:
        source: ROOT/CLASS/**/IMAGE.
        split: what it is called.
        classes: a file of names by label; None: all folders by name.

    Raises:
        InputError: no such folder or file, no folders in it, or one that is none of the classes.
    """
    folder = Path(source.root)
    found = _folders(folder)
    names = found if classes is None else read_classes(Path(classes))
    labels = {name: label for label, name in enumerate(names)}
    if unknown := [name for name in found if name not in labels]:
        raise InputError(
            f"{folder}: found folders {', '.join(unknown[:3])} ({len(unknown)} in all) that are none of the "
            f"{len(labels)} classes; add them to the file, or give the folder that belongs to it"
        )
    entries: dict[str, Facts] = {}
    others: Counter[str] = Counter()
    for name in found:
        facts = {"label": labels[name]}
        for path in _files_below(folder, name):
            if extension_of(path) in IMAGE_EXTENSIONS:
                entries[path] = facts
            else:
                others[extension_of(path) or "without extension"] += 1
    notes = [f"left out, as no images: {', '.join(f'{n} {kind}' for kind, n in sorted(others.items()))}"]
    return Found([find_files(split, folder, entries, notes if others else [])], list(labels))


def _folders(folder: Path) -> list[str]:
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not _is_hidden(entry.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}; expected ROOT/CLASS/IMAGE") from error
    if not found:
        raise InputError(f"{folder}: found no folders, expected one per class; give the folder above the classes")
    return found


def _files_below(folder: Path, name: str) -> list[str]:
    """Paths relative to `folder` of the files below one of its folders, sorted; links are followed."""
    found = []
    for at, folders, files in os.walk(folder / name, followlinks=True):
        folders[:] = sorted(each for each in folders if not _is_hidden(each))
        relative = os.path.relpath(at, folder).replace(os.sep, "/")
        found += [f"{relative}/{each}" for each in files if not _is_hidden(each)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def read_classes(file: Path) -> list[str]:
    """A file with one class name per line, by label. Raises InputError."""
    try:
        return file.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}; expected a text file, one class name per line") from error
