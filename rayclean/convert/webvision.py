"""WebVision 1.0 (Li et al., 2017), whose classes are what was searched for.

A line of its lists: `google/q0001/NAME.jpg 0`. The resized and the original images have the same names. Classes are
lines of `synsets.txt`, as `n01440764 tench, Tinca tinca`: some names alone are there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rayclean.convert.files import find_files
from rayclean.convert.lists import collect, read_labels, read_lines
from rayclean.convert.samples import Facts, Found, Source
from rayclean.errors import ConfigError, InputError

NAMES_FILE = "synsets.txt"
SOURCES = ("google", "flickr")
VAL_FOLDERS = ("val_images_256", "val_images")


@cache  # some millions of images share a thousand
def _facts(label: int, is_clean: bool) -> Facts:
    return {"label": label, "clean_label": label} if is_clean else {"label": label}


def webvision(data: Source, source: str, classes: int | None, splits: Sequence[str]) -> Found:
    """The splits, and the classes.

    Args:
        data: of the data set.
        source: of SOURCES, one training split each, or "both".
        classes: the first so many; None: all.
        splits: "train", "val" or both.

    Raises:
        InputError: a list is missing or broken, or there is no folder of validation images.
        ConfigError: more classes than there are.
    """
    root = Path(data.root)
    info = root / "info"
    names = [line for _, line in read_lines(info / NAMES_FILE)]
    kept = classes or len(names)
    if kept > len(names):
        raise ConfigError(f"--classes {kept}: {info / NAMES_FILE} has {len(names)}; give at most as many")
    found = []
    for each in SOURCES if "train" in splits else ():
        if source in (each, "both"):
            entries, notes = _read_list(info / f"train_filelist_{each}.txt", len(names), kept, is_clean=False)
            found.append(find_files(f"train_{each}", root, entries, notes))
    if "val" in splits:
        entries, notes = _read_list(info / "val_filelist.txt", len(names), kept, is_clean=True)
        found.append(find_files("val", _val_folder(root), entries, notes))
    return Found(found, names[:kept])


def _read_list(file: Path, num_classes: int, kept: int, is_clean: bool) -> tuple[dict[str, Facts], list[str]]:
    found, notes = collect(read_labels(file, num_classes))
    entries = {path: _facts(label, is_clean) for path, label in found.items() if label < kept}
    if left_out := len(found) - len(entries):
        notes = [*notes, f"{left_out:,} images of other classes left out"]
    return entries, notes


def _val_folder(root: Path) -> Path:
    there = [root / name for name in VAL_FOLDERS if (root / name).is_dir()]
    if not there:
        raise InputError(
            f"{root}: found no folder {' or '.join(VAL_FOLDERS)}; unpack the validation images, or convert --splits "
            "train alone"
        )
    return there[0]
