"""Small inputs as people have them, each after a public question or report, and what is to come of each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.helpers import png_bytes
from tests.run.case_images import KINDS, UNDECODABLE

NUM_CLASSES = 4
NAMES = ("cat", "dog", "fox", "owl")
ONE_BASED = "class 0 is empty and 200 is out of range; set data.label_offset: 1"


@dataclass(frozen=True)
class Member:
    """A member of a tar; of another kind than a file where `kind` says so."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""


@dataclass(frozen=True)
class Case:
    """An input and its outcome.

    Attributes:
        members: of its tar.
        data: the config's section, but the shards.
        rows: how many samples are rows; 0 where the run is refused.
        quarantined: samples in quarantine by reason.
        strays: files of no sample by kind.
        said: part of the error that ends the run with exit code 2, or of the warning; empty for none.
    """

    members: Callable[[], Iterator[Member]]
    rows: int
    data: Mapping[str, object] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    strays: Mapping[str, int] = field(default_factory=dict)
    said: str = ""


# Of the forms of the label 3 those that can be nothing else are rows.
LABELS = {
    "plain": b"3",
    "nl": b"3\n",
    "crlf": b"3\r\n",
    "bom": b"\xef\xbb\xbf3",
    "float": b"3.0",
    "lead0": b"003",
    "json_list": b"[3]",
    "quoted": b'"3"',
    "tab": b"3\t",
    "plus": b"+3",
}
BAD_LABELS = {
    "utf16": b"\xff\xfe3\x00",
    "pybytes": b"b'3\\n'",
    "neg": b"-1",
    "onehot": b"[0,0,0,1]",
    "two": b"3 1",
    "nul": b"3\x00",
    "int32le": b"\x03\x00\x00\x00",
    "int64le": b"\x03" + bytes(7),
    "npy": b"\x93NUMPY",
    "empty": b"",
    "true": b"true",
    "nan": b"nan",
    "exp": b"3e0",
    "arabic": "\u0663".encode(),
    "hex": b"0x3",
    "comment": b"3 # cat",
}


def sample(key: str, label: object, seed: int) -> Iterator[Member]:
    """A label and an image."""
    yield Member(f"{key}.cls", str(label).encode())
    yield Member(f"{key}.png", png_bytes(seed, 12, 12))


def plain(start: str = "", count: int = 60) -> Iterator[Member]:
    """Good samples."""
    for i in range(count):
        yield from sample(f"{start}{i:04d}", i % NUM_CLASSES, i)


def one_based() -> Iterator[Member]:
    """Five samples of each of 200 classes, counted from 1."""
    for i in range(1000):
        yield from sample(f"{i:05d}", 1 + i * 7 % 200, i)


def appledouble(start: str) -> Iterator[Member]:
    """What the tar of macOS puts before each file."""
    if start == "train/":
        yield Member(start, kind=tarfile.DIRTYPE)
    for member in plain(start):
        yield Member(f"{start}._{member.name.removeprefix(start)}", b"\x00\x05\x16\x07" + bytes(162))
        yield member


def info_json() -> Iterator[Member]:
    """Labels within members called `.info.json`."""
    for i in range(60):
        yield Member(f"{i:04d}.png", png_bytes(i, 12, 12))
        yield Member(f"{i:04d}.info.json", json.dumps({"action": {"label": i % NUM_CLASSES}}).encode())


def hardlinks() -> Iterator[Member]:
    """GNU tar of files that are hard links: every second label is that of a sample before."""
    for i, member in enumerate(plain()):
        row = i // 2
        if member.name.endswith(".cls") and row >= 30:
            yield Member(member.name, kind=tarfile.LNKTYPE, target=f"{row % NUM_CLASSES:04d}.cls")
        else:
            yield member


def folders() -> Iterator[Member]:
    """An ImageFolder, packed as it is."""
    for i in range(60):
        yield Member(f"{NAMES[i // 15]}/{i:04d}.png", png_bytes(i, 12, 12))


def image_kinds() -> Iterator[Member]:
    """A sample of each kind of image."""
    for i, (key, (extension, content)) in enumerate(KINDS.items()):
        yield Member(f"{key}.cls", str(i % NUM_CLASSES).encode())
        yield Member(f"{key}.{extension}", content())


def label_forms() -> Iterator[Member]:
    """A sample of each form of label."""
    for i, (key, label) in enumerate({**LABELS, "minus0": b"-0", **BAD_LABELS}.items()):
        yield Member(f"{key}.cls", label)
        yield Member(f"{key}.png", png_bytes(i, 12, 12))


def strays() -> Iterator[Member]:
    """Files that file managers and people leave, before and between good samples."""
    names = ["README.md", "train/.DS_Store", "train/Thumbs.db", "train/labels.csv", "metadata.json"]
    yield from (Member(name, b"x") for name in [*names, "__MACOSX/train/._0001.png"])
    yield from plain("train/", 50)


def several_images() -> Iterator[Member]:
    """Several images a sample, one of them `.left.JPG` or `.input.png`; keys with blanks, an umlaut, dots before it."""
    for i in range(30):
        key = f"v1.0/sä mple {i:03d}"
        yield Member(f"{key}.cls.txt", str(i % NUM_CLASSES).encode())
        yield Member(f"{key}.left.JPG" if i % 2 else f"{key}.input.png", png_bytes(i, 12, 12))
        yield Member(f"{key}.right.jpg", png_bytes(i + 100, 12, 12))


CASES = {
    "00-width-under-16": Case(one_based, 995, {"classes": 200}, {"bad_label": 5}, said=ONE_BASED),
    "01-appledouble": Case(lambda: appledouble("train/"), 60, strays={"._*": 120}),
    "01b-appledouble-dot": Case(lambda: appledouble("./"), 60, strays={"._*": 120}),
    "02-info-json": Case(info_json, 60, {"label": "info.json:action.label"}),
    "03-one-based": Case(one_based, 995, {"classes": 200}, {"bad_label": 5}, said=ONE_BASED),
    "04-hardlinks": Case(hardlinks, 60),
    "05-folder-labels": Case(
        folders,
        0,
        {"classes": list(NAMES)},
        {"missing_label": 60},
        said="no usable sample (60 samples, quarantined: missing_label 60); check data.image, data.label (where "
        "classes are folders: data.label: folder)",
    ),
    "06-image-kinds": Case(
        image_kinds,
        len(KINDS) - len(UNDECODABLE),
        {"max_bad_share": 1.0},
        {"undecodable": len(UNDECODABLE) - 1, "missing_image": 1},
    ),
    "07-label-forms": Case(label_forms, len(LABELS) + 1, {"max_bad_share": 1.0}, {"bad_label": len(BAD_LABELS)}),
    "09-stray-members": Case(
        strays, 50, strays={"._*": 1, ".csv": 1, ".ds_store": 1, ".json": 1, ".md": 1, "thumbs.db": 1}
    ),
    "11-multi-ext": Case(several_images, 30, {"image": "left.jpg;input.png", "label": "cls.txt"}),
}
TWICE = "15-yaml-twice"
TWICE_TEXT = """\
run: {dir: runs/cases/15}
data: {shards: "${RAYCLEAN_CASES}/01b-appledouble-dot/*.tar", classes: 4}
train: {epochs: 90}
merge: {threshold: 0.4}
train: {batch_size: 64}
"""


def make(name: str, root: Path) -> None:
    """Writes a case's tar and config to a folder of its name."""
    folder = root / name
    folder.mkdir()
    if name == TWICE:
        (folder / "config.yaml").write_text(TWICE_TEXT)
        return
    with tarfile.open(folder / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for member in CASES[name].members():
            info = tarfile.TarInfo(member.name)
            info.size, info.type, info.linkname = len(member.content), member.kind, member.target
            tar.addfile(info, io.BytesIO(member.content))
    config = {
        "run": {"dir": f"runs/cases/{name}"},
        "data": {"shards": f"${{RAYCLEAN_CASES}}/{name}/*.tar", "classes": NUM_CLASSES, "size": 12, **CASES[name].data},
        "model": {"width": 4},
        "train": {"epochs": 2, "snapshot_every": 1, "augment": "none", "batch_size": 32},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
