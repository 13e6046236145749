"""Catalog, training stream and random access speak of the same samples, whatever the tar, wherever it is cut."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, ShardScan, scan_shard
from rayclean.errors import InputError
from rayclean.shards.access import PixelReader
from rayclean.shards.decode import decode_image
from rayclean.shards.stream import stream_shard
from rayclean.shards.tar import split_name
from rayclean.storage.draws import pixel_digest
from tests.helpers import BLOCK, Content, png_bytes, tar_bytes

SETTINGS = ScanSettings(("png", "jpg"), LabelField("cls"), LabelField("txt"), ClassList.load(3), 1e6)
IMAGES = [png_bytes(i, 2, 2) for i in range(3)]
CONTENTS = {
    "png": st.sampled_from([*IMAGES, IMAGES[0][:40]]),
    "PNG": st.sampled_from(IMAGES),
    "jpg": st.sampled_from(IMAGES),
    "cls": st.sampled_from([b"0", b"1", b"2", b"3", b"x" * 600]),
    "txt": st.sampled_from([b"0", b"9"]),
}
STRAYS = [
    ("README", b"x"),
    ("__skip__/a.png", b"y"),
    ("__a.b__", b""),
    ("._a.png", b"z"),
    ("c/.DS_Store", b""),
    ("c/d.e/notes.md", b"z"),
    ("a.md", b"of no sample's kind, but one's key"),
]
KEYS = st.sampled_from(["a", "b", "c/d.e/f", "k\udcff", "l" * 90 + "/" + "m" * 80])


@st.composite
def members(draw: st.DrawFn) -> Content:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(STRAYS))
    extension = draw(st.sampled_from(sorted(CONTENTS)))
    return f"{draw(KEYS)}.{extension}", draw(CONTENTS[extension])


TARS = st.lists(members() | KEYS.map(lambda key: (f"{key}.cls", b"1")), max_size=14)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def check_one_shard(path: Path, data: bytes) -> ShardScan:
    """The laws that hold for any shard that is a tar."""
    path.write_bytes(data)
    scan = scan_shard(str(path), SETTINGS)
    rows, quarantine = scan.rows.to_pylist(), scan.quarantine.to_pylist()
    assert len({entry["sample"] for entry in rows + quarantine}) == len(rows + quarantine) == scan.num_samples
    assert len({row["key"] for row in rows}) == len(rows)
    assert scan.truth is not None
    assert scan.truth.num_rows == len(rows)

    streamed = list(stream_shard(str(path), None))
    assert [ordinal for ordinal, _, _ in streamed] == list(range(len(streamed)))
    keys = {entry["sample"]: entry["key"] for entry in rows + quarantine}
    strays = [content for ordinal, _, content in streamed if ordinal not in keys]
    assert not any(set(content) & {"png", "jpg", "cls", "txt"} for content in strays)
    # The catalog also counts a sample of which only the header of the first member is there.
    assert scan.num_samples + len(strays) - len(streamed) in ((0, 1) if scan.truncated else (0,))
    assert all(keys[ordinal] == key for ordinal, key, _ in streamed if ordinal in keys)

    reader = PixelReader([str(path)], 2, 1e6)
    for row in rows:
        name = split_name(row["member"])
        assert name is not None
        image = streamed[row["sample"]][2][name[1]]
        assert reader.read_bytes(0, row["offset"], row["size"]) == image
        assert row["digest"] == pixel_digest(decode_image(image, 1e6))
        assert row["label"] == int(streamed[row["sample"]][2]["cls"])
    reader.close()
    return scan


@settings(deadline=None)
@given(contents=TARS, tar_format=FORMATS, position=st.floats(0, 1))
def test_catalog_stream_and_offsets_agree(
    tmp_path_factory: pytest.TempPathFactory, contents: list[Content], tar_format: int, position: float
) -> None:
    path = tmp_path_factory.mktemp("agree") / "a.tar"
    data = tar_bytes(contents, tar_format)
    whole = check_one_shard(path, data)
    assert whole.truncated == ""

    length = int(position * len(data))
    try:
        part = check_one_shard(path, data[:length])
    except InputError as error:
        # Not even the first header is whole; with a long name it takes several blocks.
        assert length < 5 * BLOCK, error  # noqa: PT017
        return
    assert bool(part.truncated) == (length < len(data) and any(data))  # a tar of nothing is all zeros
    kept = part.rows.num_rows
    assert part.rows.equals(whole.rows.slice(0, kept))
    # No more is lost than the sample at the break and what comes after it.
    assert all(ordinal >= part.num_samples - 1 for ordinal in whole.rows["sample"].to_pylist()[kept:])
    assert "truncated" not in part.quarantine["reason"].to_pylist()[:-1]


@settings(deadline=None)
@given(contents=TARS, tar_format=FORMATS, damage=st.binary(min_size=1, max_size=30), position=st.floats(0, 1))
def test_they_agree_on_damaged_tars_too(
    tmp_path_factory: pytest.TempPathFactory, contents: list[Content], tar_format: int, damage: bytes, position: float
) -> None:
    data = tar_bytes(contents, tar_format)
    at = int(position * len(data))
    path = tmp_path_factory.mktemp("damage") / "a.tar"
    try:
        check_one_shard(path, (data[:at] + damage + data[at + len(damage) :])[: len(data)])
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
