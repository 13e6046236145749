"""WebVision 1.0 (Li et al., 2017) to shards; with `--classes 50` and Google's images alone, mini-WebVision.

    .venv/bin/python tools/convert_webvision.py /data/webvision shards/mini_webvision --source google --classes 50
    .venv/bin/python tools/convert_webvision.py /data/webvision shards/webvision --source both

ROOT holds `info/` (`synsets.txt`, `train_filelist_google.txt`, `train_filelist_flickr.txt`, `val_filelist.txt`; a
line: `google/q0001/NAME.jpg 0`), the training images in `google/` and `flickr/`, and those of validation in
`val_images_256/` or `val_images/`. The resized and the original images have the same names.

| split | images | JSON |
|---|---|---|
| `train_google`, `train_flickr` | of the file lists | `label`: the class that was searched for |
| `val` | 50 a class | `label`, and the same as `clean_label`: people checked it |

Classes are lines of `synsets.txt`, as `n01440764 tench, Tinca tinca`: some names alone are there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rayclean.errors import ConfigError, InputError
from tools.convert import Facts, Split, call, convert, make_parser, parse_count, read_options
from tools.convert_clothing1m import collect, read_labels, read_lines
from tools.convert_imagefolder import find_files

NAMES_FILE = "synsets.txt"
SOURCES = ("google", "flickr")
VAL_FOLDERS = ("val_images_256", "val_images")
PARTS = ("train", "val")


@cache  # some millions of images share a thousand
def _facts(label: int, is_clean: bool) -> Facts:
    return {"label": label, "clean_label": label} if is_clean else {"label": label}


def list_splits(
    root: Path, sources: Sequence[str], parts: Sequence[str], num_classes: int | None
) -> tuple[list[Split], list[str]]:
    """The splits, and the classes.

    Args:
        root: of the data set.
        sources: of SOURCES, a training split each.
        parts: of PARTS.
        num_classes: the first so many classes; None: all.

    Raises:
        InputError: a list is missing or broken, or there is no folder of validation images.
        ConfigError: more classes than there are.
    """
    info = root / "info"
    names = [line for _, line in read_lines(info / NAMES_FILE)]
    kept = num_classes or len(names)
    if kept > len(names):
        raise ConfigError(f"--classes {kept}: {info / NAMES_FILE} has {len(names)}; give at most as many")
    splits = []
    for source in sources if "train" in parts else ():
        entries, notes = _read_list(info / f"train_filelist_{source}.txt", len(names), kept, is_clean=False)
        splits.append(find_files(f"train_{source}", root, entries, notes))
    if "val" in parts:
        entries, notes = _read_list(info / "val_filelist.txt", len(names), kept, is_clean=True)
        splits.append(find_files("val", _val_folder(root), entries, notes))
    return splits, names[:kept]


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("Write WebVision 1.0 as shards.")
    parser.add_argument("--source", choices=[*SOURCES, "both"], default="both", help="where the images are from (both)")
    parser.add_argument("--classes", type=parse_count, help="the first so many classes (all)")
    parser.add_argument("--splits", nargs="+", choices=PARTS, default=PARTS, help="(all)")
    found = parser.parse_args(arguments)
    sources = SOURCES if found.source == "both" else (found.source,)
    splits, classes = list_splits(Path(found.root), sources, found.splits, found.classes)
    convert(splits, classes, read_options(found))


if __name__ == "__main__":
    call(main)
