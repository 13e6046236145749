"""Clothing1M (Xiao et al., CVPR 2015) to shards, with both labels where an image has both.

    .venv/bin/python tools/convert_clothing1m.py /data/clothing1m shards/clothing1m

ROOT holds the lists (or has them in `annotations/`): `category_names_eng.txt`, `noisy_label_kv.txt`,
`clean_label_kv.txt` (a line: `images/7/77/NAME.jpg 3`), `noisy_train_key_list.txt`, `clean_train_key_list.txt`,
`clean_val_key_list.txt`, `clean_test_key_list.txt`; and the images, unpacked to `images/0` .. `images/9` or to
`0` .. `9`.

| split | images | `label` |
|---|---|---|
| `noisy_train` | of its list, a million | noisy |
| `clean_train`, `val`, `test` | of the clean lists | clean |
| `both` | all that have both labels | noisy; `clean_label` is the truth to evaluate by |

Wherever an image has them, `noisy_label` and `clean_label` are in its JSON, whatever `label` is. For the setting with
clean images give `clean_train` as `influence.validation`, or beside `noisy_train` in `data.shards`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rayclean.errors import InputError
from tools.convert import IMAGE_EXTENSIONS, Facts, Split, call, convert, make_parser, read_options
from tools.convert_imagefolder import extension_of, find_files

NAMES_FILE = "category_names_eng.txt"
NOISY, CLEAN = "noisy_label_kv.txt", "clean_label_kv.txt"
LISTS = {
    "noisy_train": ("noisy_train_key_list.txt", NOISY),
    "clean_train": ("clean_train_key_list.txt", CLEAN),
    "val": ("clean_val_key_list.txt", CLEAN),
    "test": ("clean_test_key_list.txt", CLEAN),
}
BOTH = "both"
IMAGES = "images"

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


@functools.cache  # a million images share a few of them
def _facts(label: int, noisy: int | None, clean: int | None) -> Facts:
    known = {"noisy_label": noisy, "clean_label": clean}
    return {"label": label, **{name: value for name, value in known.items() if value is not None}}


def list_splits(source: Path, names: Sequence[str]) -> tuple[list[Split], list[str]]:
    """The splits of these names, and the classes.

    Raises:
        InputError: a list is missing or broken, or an image of a list has no label.
    """
    lists = source / "annotations" if (source / "annotations" / NOISY).exists() else source
    classes = [line for _, line in read_lines(lists / NAMES_FILE)]
    labels = {file: collect(read_labels(lists / file, len(classes)))[0] for file in (NOISY, CLEAN)}
    absent = "" if (source / IMAGES).is_dir() else f"{IMAGES}/"
    splits = []
    for name in names:
        paths, notes = _paths_of(name, lists, labels)
        given = NOISY if name == BOTH else LISTS[name][1]
        entries = {
            path: _facts(labels[given][path], labels[NOISY].get(path), labels[CLEAN].get(path)) for path in paths
        }
        splits.append(find_files(name, source, entries, notes, absent))
    return splits, classes


def _paths_of(name: str, lists: Path, labels: dict[str, dict[str, int]]) -> tuple[Iterable[str], list[str]]:
    if name == BOTH:
        return [path for path in labels[NOISY] if path in labels[CLEAN]], []
    file, given = LISTS[name]
    found, notes = collect((at, check_path(at, line), True) for at, line in read_lines(lists / file))
    if without := [path for path in found if path not in labels[given]]:
        raise InputError(
            f"{lists / file}: {len(without):,} images, the first {without[0]}, have no label in {lists / given}; "
            "fetch both files again"
        )
    return found, notes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("Write Clothing1M as shards.")
    parser.add_argument("--splits", nargs="+", choices=[*LISTS, BOTH], default=[*LISTS, BOTH], help="(all)")
    found = parser.parse_args(arguments)
    splits, classes = list_splits(Path(found.root), list(dict.fromkeys(found.splits)))
    convert(splits, classes, read_options(found))


if __name__ == "__main__":
    call(main)
