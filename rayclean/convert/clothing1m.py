"""Clothing1M (Xiao et al., CVPR 2015), with both labels where an image has both.

A line of its lists of labels: `images/7/77/NAME.jpg 3`. For the setting with clean images give `clean_train` as
`influence.validation`, or beside `noisy_train` in `data.shards`; of the split `both`, `clean_label` is the truth to
evaluate by.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rayclean.convert.files import find_files
from rayclean.convert.lists import check_path, collect, read_labels, read_lines
from rayclean.convert.samples import Facts, Found, Source, Split
from rayclean.errors import InputError

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


@functools.cache  # a million images share a few of them
def _facts(label: int, noisy: int | None, clean: int | None) -> Facts:
    known = {"noisy_label": noisy, "clean_label": clean}
    return {"label": label, **{name: value for name, value in known.items() if value is not None}}


def clothing1m(source: Source, splits: Sequence[str]) -> Found:
    """The splits of these names, and the classes.

    Args:
        source: of the data set.
        splits: of LISTS, or BOTH.

    Raises:
        InputError: a list is missing or broken, or an image of a list has no label.
    """
    root = Path(source.root)
    lists = root / "annotations" if (root / "annotations" / NOISY).exists() else root
    classes = [line for _, line in read_lines(lists / NAMES_FILE)]
    labels = {file: collect(read_labels(lists / file, len(classes)))[0] for file in (NOISY, CLEAN)}
    absent = "" if (root / IMAGES).is_dir() else f"{IMAGES}/"
    found: list[Split] = []
    for name in splits:
        paths, notes = _paths_of(name, lists, labels)
        given = NOISY if name == BOTH else LISTS[name][1]
        entries = {
            path: _facts(labels[given][path], labels[NOISY].get(path), labels[CLEAN].get(path)) for path in paths
        }
        found.append(find_files(name, root, entries, notes, absent))
    return Found(found, classes)


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
