"""docs/design.md, section 9: each row of its table for what lies in a shard, and its outcome."""

from __future__ import annotations

import os
import pickle
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import QUARANTINE_SCHEMA, ROWS_SCHEMA, TRUTH_SCHEMA, ScanSettings, ShardScan, scan_shard
from rayclean.errors import InputError
from rayclean.schema import NONE_OF_CLASSES
from rayclean.storage.draws import pixel_digest
from tests.helpers import (
    BLOCK,
    Content,
    image_bytes,
    member_bytes,
    png_bytes,
    random_pixels,
    sample,
    samples,
    tar_bytes,
    write_tar,
)

SETTINGS = ScanSettings(("png", "jpg", "jpeg", "webp"), LabelField("cls"), None, ClassList.load(10), 1000)
WITH_TRUTH = ScanSettings(("png",), LabelField("cls"), LabelField("json", ("truth",)), ClassList.load(10), 1000)
GOOD = sample("good", 3)


def outcome(scan: ShardScan) -> list[str]:
    """What became of each sample: `row`, or the reason."""
    reasons = dict(zip(scan.quarantine["sample"].to_pylist(), scan.quarantine["reason"].to_pylist(), strict=True))
    rows = scan.rows["sample"].to_pylist()
    assert sorted([*rows, *reasons]) == list(range(scan.num_samples))  # all accounted for, none twice
    assert scan.rows["index_in_shard"].to_pylist() == list(range(len(rows)))
    assert all(scan.quarantine["text"].to_pylist())
    return [reasons.get(ordinal, "row") for ordinal in range(scan.num_samples)]


def scan_of(folder: Path, members: list[Content]) -> ShardScan:
    return scan_shard(write_tar(folder / "a.tar", members), SETTINGS)


def test_rows_say_where_the_image_is_and_what_it_is(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", samples([4, 2]))
    scan = scan_shard(url, SETTINGS)
    assert (scan.num_samples, scan.truncated, scan.truth, scan.quarantine.num_rows) == (2, "", None, 0)
    assert (scan.rows.schema, scan.quarantine.schema) == (ROWS_SCHEMA, QUARANTINE_SCHEMA)
    data = Path(url).read_bytes()
    for i, row in enumerate(scan.rows.to_pylist()):
        assert (row["key"], row["member"], row["label"]) == (f"k{i}", f"k{i}.png", [4, 2][i])
        assert data[row["offset"] : row["offset"] + row["size"]] == png_bytes(i)
        assert row["digest"] == pixel_digest(random_pixels(i))


def test_a_remote_shard(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/scan/a.tar", tar_bytes(samples([4, 2])))
    here = scan_shard(write_tar(tmp_path / "a.tar", samples([4, 2])), SETTINGS)
    assert scan_shard("memory://scan/a.tar", SETTINGS).rows.equals(here.rows)
    fsspec.filesystem("memory").rm("/scan", recursive=True)


def big_png() -> bytes:
    return png_bytes(height=40, width=40)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("x.png", png_bytes())], "missing_label"),
        ([("x.cls", b"1")], "missing_image"),
        ([("x.cls", b"1"), ("x.tiff", image_bytes(random_pixels(0), "TIFF"))], "missing_image"),
        ([("x.cls", b"1"), ("x.png", b"")], "undecodable"),
        ([("x.cls", b"1"), ("x.png", png_bytes()[:60])], "undecodable"),
        ([("x.cls", b"1"), ("x.png", image_bytes(random_pixels(0), "GIF"))], "undecodable"),
        ([("x.cls", b"one"), ("x.png", png_bytes())], "bad_label"),
        ([("x.cls", b"10"), ("x.png", png_bytes())], "bad_label"),
        ([("x.cls", b"-1"), ("x.png", png_bytes())], "bad_label"),
        ([("x.cls", b"nan"), ("x.png", png_bytes())], "bad_label"),
        ([("x.cls", b""), ("x.png", png_bytes())], "bad_label"),
        ([("x.cls", b"1"), ("x.png", big_png())], "too_large"),
    ],
)
def test_bad_samples_are_put_aside_and_the_others_are_rows(tmp_path: Path, members: list[Content], reason: str) -> None:
    scan = scan_of(tmp_path, [*sample("a"), *members, *sample("b")])
    assert outcome(scan) == ["row", reason, "row"]
    assert scan.quarantine["key"].to_pylist() == ["x"]
    assert scan.rows["key"].to_pylist() == ["a", "b"]


def test_too_many_scans_are_put_aside_by_the_settings_alone(tmp_path: Path) -> None:
    scans = image_bytes(random_pixels(0), "JPEG", progressive=True)
    url = write_tar(tmp_path / "a.tar", [("x.cls", b"1"), ("x.jpg", scans)])
    number = scans.count(b"\xff\xda")
    assert outcome(scan_shard(url, replace(SETTINGS, max_scans=number))) == ["row"]
    assert outcome(scan_shard(url, replace(SETTINGS, max_scans=number - 1))) == ["too_many_scans"]


@pytest.mark.parametrize("extension", ["png", "cls"])
def test_a_file_that_no_image_or_label_can_have_is_never_read(extension: str, tmp_path: Path) -> None:
    big = tarfile.TarInfo(f"big.{extension}")
    big.size = 2**30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:  # with a hole instead of a content
        file.write(tar_bytes(sample("a"))[: -2 * BLOCK] + big.tobuf())
        file.seek(big.size, os.SEEK_CUR)
        file.write(tar_bytes(sample("b")))
    tracemalloc.start()
    scan = scan_shard(str(path), SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome(scan) == ["row", "too_large", "row"]
    assert peak < 2**24
    assert f".{extension} has {2**30} bytes" in scan.quarantine["text"].to_pylist()[0]


def test_a_name_that_is_not_in_the_list(tmp_path: Path) -> None:
    settings = ScanSettings(("png",), LabelField("cls"), None, ClassList.load(["cat", "dog"]), 1e6)
    url = write_tar(tmp_path / "a.tar", [*sample("a", "cat"), *sample("b", "cow")])
    assert outcome(scan_shard(url, settings)) == ["row", "bad_label"]


REPEATS: dict[str, tuple[list[Content], list[str]]] = {
    "the same sample twice": ([*GOOD, *GOOD], ["row", "duplicate_key"]),
    "three times, others between": (
        [*GOOD, *sample("b"), *GOOD, *sample("c"), *GOOD],
        ["row", "row", "duplicate_key", "row", "duplicate_key"],
    ),
    "members apart": ([GOOD[0], *sample("b"), GOOD[1]], ["missing_image", "row", "missing_label"]),
    "apart, then whole": ([GOOD[0], *sample("b"), *GOOD], ["missing_image", "row", "row"]),
    "whole, then a part": ([*GOOD, *sample("b"), GOOD[1]], ["row", "row", "missing_label"]),
    "a member repeated": ([GOOD[1], GOOD[1], GOOD[0]], ["missing_label", "row"]),
    "repeated in upper case": ([GOOD[0], GOOD[1], ("good.PNG", GOOD[1][1])], ["row", "missing_label"]),
    "the first is broken": ([GOOD[0], ("good.png", b"no"), *GOOD], ["undecodable", "row"]),
}


@pytest.mark.parametrize(("members", "expected"), REPEATS.values(), ids=REPEATS.keys())
def test_repeated_keys(tmp_path: Path, members: list[Content], expected: list[str]) -> None:
    assert outcome(scan_of(tmp_path, members)) == expected


def test_dotted_names(tmp_path: Path) -> None:
    members = [("v1.0/a.b.png", b"other"), ("v1.0/a.cls", b"1"), ("v1.0/a.png", png_bytes())]
    assert scan_of(tmp_path, members).rows["key"].to_pylist() == ["v1.0/a"]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


RGB = Image.fromarray(random_pixels(0, 8, 12))
KINDS: dict[str, Content] = {
    "upper case": ("x.PNG", image_bytes(RGB)),
    ".jpeg": ("x.jpeg", image_bytes(RGB, "JPEG")),
    "webp": ("x.webp", image_bytes(RGB, "WEBP")),
    "a jpeg called png": ("x.png", image_bytes(RGB, "JPEG")),
    "grey": ("x.png", image_bytes(RGB.convert("L"))),
    "alpha": ("x.png", image_bytes(RGB.convert("RGBA"))),
    "palette": ("x.png", image_bytes(RGB.quantize(8))),
    "CMYK": ("x.jpg", image_bytes(RGB.convert("CMYK"), "JPEG")),
    "16-bit": ("x.png", image_bytes(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600))),
    "rotated": ("x.jpg", image_bytes(RGB, "JPEG", exif=exif(6))),
}


@pytest.mark.parametrize("image", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_image_is_a_row(tmp_path: Path, image: Content) -> None:
    scan = scan_of(tmp_path, [("x.cls", b"1"), image])
    assert outcome(scan) == ["row"]
    assert scan.rows["member"].to_pylist() == [image[0]]


def test_the_first_extension_of_the_list_is_the_image(tmp_path: Path) -> None:
    members = [("x.cls", b"1"), ("x.webp", b"no image"), ("x.jpg", b"no image"), ("x.png", png_bytes())]
    assert scan_of(tmp_path, members).rows["member"].to_pylist() == ["x.png"]


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/abs", "<b>x", "a\nb\tc\x1b[31m", "\u202e\U0001f600", "'; --", "k\udcff"]
)
def test_strange_keys_are_rows(tmp_path: Path, key: str) -> None:
    scan = scan_of(tmp_path, sample(key))
    assert outcome(scan) == ["row"]
    assert scan.rows["key"].to_pylist() == [key.replace("\udcff", "\\xff")]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


class Bomb:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


def test_pickles_and_unknown_members_are_never_loaded(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb())
    rest = [(f"good.{extension}", bomb) for extension in ("pkl", "pickle", "pth", "pyd", "npy", "ten", "zzz")]
    assert outcome(scan_of(tmp_path, [*GOOD, *rest])) == ["row"]
    assert outcome(scan_of(tmp_path, [("x.cls", bomb), ("x.png", png_bytes())])) == ["bad_label"]
    assert outcome(scan_of(tmp_path, [("x.cls", b"1"), ("x.png", bomb)])) == ["undecodable"]


@pytest.mark.parametrize("data", [tar_bytes([]), bytes(10240), tar_bytes([("README", b"x")])])
def test_an_empty_shard_is_no_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    scan = scan_shard(str(tmp_path / "a.tar"), WITH_TRUTH)
    assert (outcome(scan), scan.truncated, scan.rows.schema) == ([], "", ROWS_SCHEMA)
    assert scan.truth is not None
    assert scan.truth.schema == TRUTH_SCHEMA


def cut(folder: Path, data: bytes) -> ShardScan:
    (folder / "a.tar").write_bytes(data)
    return scan_shard(str(folder / "a.tar"), SETTINGS)


THREE = [member for i in range(3) for member in sample(f"k{i}", i, seed=i)]
LENGTHS = [len(member_bytes(*member)) for member in THREE]  # cls, png, cls, png, cls, png


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (sum(LENGTHS), ["row", "row", "truncated"]),  # without end-of-archive blocks
        (sum(LENGTHS) + BLOCK, ["row", "row", "truncated"]),  # with one of the two
        (sum(LENGTHS[:5]), ["row", "row", "truncated"]),  # between members of k2
        (sum(LENGTHS[:4]), ["row", "truncated"]),  # after k1, which may have had more
        (sum(LENGTHS[:4]) + 100, ["row", "truncated"]),  # in a header: whose, nobody knows
        (sum(LENGTHS[:4]) + BLOCK, ["row", "row", "truncated"]),  # in the content of k2's first member
        (sum(LENGTHS[:3]) + BLOCK + 50, ["row", "truncated"]),  # in the image of k1
        (BLOCK, ["truncated"]),
    ],
)
def test_a_cut_tar(tmp_path: Path, length: int, expected: list[str]) -> None:
    scan = cut(tmp_path, tar_bytes(THREE)[:length])
    assert outcome(scan) == expected
    assert scan.truncated
    assert scan.quarantine["text"].to_pylist() == [scan.truncated]


def test_a_corrupt_header(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(THREE))
    start = sum(LENGTHS[:4])
    data[start : start + 20] = b"\xff" * 20
    scan = cut(tmp_path, bytes(data))
    assert outcome(scan) == ["row", "truncated"]
    assert scan.truncated == f"corrupt header at byte {start}"


def test_truth_is_kept_apart_and_costs_no_row(tmp_path: Path) -> None:
    truths = [b'{"truth": 5}', b'{"truth": 99}', b"{", None, b'{"truth": 0}', b'{"truth": -1}', b'{"truth": null}']
    members: list[Content] = []
    for i, truth in enumerate(truths):
        members += [*sample(f"k{i}", i, seed=i), *([(f"k{i}.json", truth)] if truth else [])]
    url = write_tar(tmp_path / "a.tar", [("bad.cls", b"1"), *members])
    scan = scan_shard(url, WITH_TRUTH)
    assert scan.truth is not None
    assert scan.rows["label"].to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert scan.truth["label"].to_pylist() == [5, None, None, None, 0, NONE_OF_CLASSES, None]
    assert "truth" not in scan.rows.column_names


def test_truth_by_row(tmp_path: Path) -> None:
    members = [*sample("a", 1), ("a.json", b'{"truth": 2}'), ("bad.json", b'{"truth": 3}'), *sample("b", 4)]
    scan = scan_shard(write_tar(tmp_path / "a.tar", members), WITH_TRUTH)
    assert scan.truth is not None
    assert scan.truth.to_pylist() == [{"index_in_shard": 0, "label": 2}, {"index_in_shard": 1, "label": None}]
    assert outcome(scan) == ["row", "missing_image", "row"]


@pytest.mark.parametrize("data", [b"", b"garbage", png_bytes(), b"\x1f\x8b" + bytes(range(200))])
def test_what_is_no_tar_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.tar: (not a tar|compressed with gzip)"):
        cut(tmp_path, data)


def test_a_vanished_shard_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tar: cannot be read: No such file"):
        scan_shard(str(tmp_path / "none.tar"), SETTINGS)


def test_the_same_shard_gives_the_same_tables(tmp_path: Path) -> None:
    members = [*samples([1, 11, 2]), ("x.png", b"bad"), ("x.cls", b"1")]
    one, two = scan_of(tmp_path, members), scan_of(tmp_path, members)
    assert one.rows.equals(two.rows)
    assert one.quarantine.equals(two.quarantine)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"clip": "walk/1"}', "walk/1"),
        (b'{"clip": 7}', "7"),
        (b"{}", "missing_clip"),
        (b'{"clip": [1, 2]}', "bad_clip"),
        (None, "missing_clip"),
    ],
)
def test_a_frame_says_its_clip(tmp_path: Path, content: bytes | None, expected: str) -> None:
    settings = replace(SETTINGS, clip=LabelField("json", ("clip",)))
    members = [*sample("a"), *([("a.json", content)] if content else [])]
    scan = scan_shard(write_tar(tmp_path / "a.tar", members), settings)
    assert [*scan.rows["clip"].to_pylist(), *scan.quarantine["reason"].to_pylist()] == [expected]
