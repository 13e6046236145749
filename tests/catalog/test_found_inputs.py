"""Shards as people have them: what belongs to no sample, links, members apart, labels in folders and in named JSON."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, ShardScan, scan_shard
from tests.helpers import Content, png_bytes, write_tar

SETTINGS = ScanSettings(("png", "jpg"), LabelField("cls"), None, ClassList.load(["cat", "dog"]), 1e6)


def sample(key: str, label: int) -> list[Content]:
    return [(f"{key}.cls", str(label).encode()), (f"{key}.png", png_bytes(label, 4, 4))]


def scanned(folder: Path, members: list[Content], settings: ScanSettings = SETTINGS) -> ShardScan:
    return scan_shard(write_tar(folder / "a.tar", members), settings)


def keys(scan: ShardScan) -> list[str]:
    found: list[str] = scan.rows["key"].to_pylist()
    return found


@pytest.mark.parametrize("start", ["train/", "./", ""])
def test_what_macos_puts_before_each_file_is_nobodys(tmp_path: Path, start: str) -> None:
    members: list[Content] = []
    for key in ("0", "1"):
        for name, content in sample(key, 1):
            members += [(f"{start}._{name}", b"x"), (f"{start}{name}", content)]
    scan = scanned(tmp_path, members)
    assert keys(scan) == [f"{start}0", f"{start}1"]
    assert (scan.num_samples, scan.quarantine.num_rows, scan.strays) == (2, 0, {"._*": 4})


def test_what_belongs_to_no_sample_is_counted_once_and_breaks_none(tmp_path: Path) -> None:
    (cls, png), after = sample("train/0", 1), sample("train/1", 0)
    strays = [
        "README.md",
        "train/.DS_Store",
        "train/Thumbs.db",
        "train/labels.csv",
        "__MACOSX/train/._0.png",
        "LICENSE",
    ]
    members = [("metadata.json", b"{}"), cls, *((name, b"x") for name in strays[1:3]), png, *after]
    scan = scanned(tmp_path, [*members, *((name, b"x") for name in (strays[0], *strays[3:]))])
    assert keys(scan) == ["train/0", "train/1"]
    assert scan.quarantine.num_rows == 0
    assert scan.num_samples == 2
    kinds = {".json": 1, ".md": 1, ".ds_store": 1, "thumbs.db": 1, ".csv": 1, "._*": 1, "no extension": 1}
    assert scan.strays == kinds


def test_an_image_of_another_kind_beside_a_label_is_a_sample(tmp_path: Path) -> None:
    scan = scanned(tmp_path, [("0.cls", b"1"), ("0.gif", b"x"), ("1.gif", b"x")])
    assert scan.quarantine["reason"].to_pylist() == ["missing_image"]
    assert scan.strays == {".gif": 1}


def test_a_break_behind_files_of_no_sample_costs_none(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", [*sample("0", 1), ("notes.md", b"x" * 600)]))
    path.write_bytes(path.read_bytes()[: 4 * 512 + 512 + 100])  # within the notes
    scan = scan_shard(str(path), SETTINGS)
    assert scan.truncated
    assert keys(scan) == ["0"]


def test_links(tmp_path: Path) -> None:
    links = [("1.cls", tarfile.LNKTYPE, "0.cls"), ("2.cls", tarfile.SYMTYPE, "0.cls"), ("3.cls", tarfile.LNKTYPE, "x")]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in sample("0", 1):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for index, (name, kind, target) in enumerate(links):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
            content = png_bytes(10 + index, 4, 4)
            info = tarfile.TarInfo(name.replace("cls", "png"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    scan = scan_shard(str(tmp_path / "a.tar"), SETTINGS)
    assert scan.rows.select(["key", "label"]).to_pylist() == [{"key": "0", "label": 1}, {"key": "1", "label": 1}]
    assert scan.quarantine["reason"].to_pylist() == ["link", "link"]
    assert all("pack it with tar -h" in text for text in scan.quarantine["text"].to_pylist())


def test_members_apart_are_told(tmp_path: Path) -> None:
    (a, b), (c, d) = sample("0", 1), sample("1", 1)
    scan = scanned(tmp_path, [a, c, b, d, ("2.cls", b"0")])
    assert scan.quarantine["reason"].to_pylist() == ["missing_image"] * 2 + ["missing_label"] * 2 + ["missing_image"]
    assert ["--sort=name" in text for text in scan.quarantine["text"].to_pylist()] == [True] * 4 + [False]


def test_the_folder_is_the_label(tmp_path: Path) -> None:
    settings = replace(SETTINGS, label=LabelField.parse("folder"))
    members = [(f"train/{name}/{key}.png", png_bytes(key, 4, 4)) for key, name in enumerate(["cat", "dog", "fox"])]
    scan = scanned(tmp_path, [*members, ("train/notes.txt", b"x")], settings)
    assert scan.rows["label"].to_pylist() == [0, 1]
    assert scan.quarantine["reason"].to_pylist() == ["bad_label"]
    assert scan.strays == {".txt": 1}


def test_a_label_in_a_named_json_member(tmp_path: Path) -> None:
    settings = replace(SETTINGS, label=LabelField.parse("info.json:action.label"))
    content = json.dumps({"action": {"label": [" dog "]}}).encode()
    scan = scanned(tmp_path, [("0.png", png_bytes()), ("0.info.json", content)], settings)
    assert scan.rows["label"].to_pylist() == [1]


def test_numbers_that_count_from_one(tmp_path: Path) -> None:
    settings = replace(SETTINGS, classes=ClassList.load(["cat", "dog"], offset=1))
    scan = scanned(tmp_path, [*sample("0", 1), *sample("1", 2), *sample("2", 0)], settings)
    assert scan.rows["label"].to_pylist() == [0, 1]
    assert scan.quarantine["text"].to_pylist() == ["label 0 is out of range: 1 <= label < 3"]
