"""Streaming sees WebDataset's samples; that they are the catalog's is in tests/catalog/test_agreement.py."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import tarfile_samples

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.errors import InputError
from rayclean.shards import stream
from rayclean.shards.opening import REMOTE_READ_BYTES
from rayclean.shards.stream import stream_shard
from tests.helpers import member_bytes, sample, samples, tar_bytes, write_tar

MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["a.png", "a.PNG", "a.cls", "a.b.png", "d.e/a.cls", "b.png", "b.cls", "b", "__m__.x", "__m__x__"]
        ),
        st.binary(max_size=4),
    ),
    max_size=10,
)


@settings(deadline=None)
@given(members=MEMBERS, tar_format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT]))
def test_the_samples_of_webdataset(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], tar_format: int
) -> None:
    url = write_tar(tmp_path_factory.mktemp("stream") / "a.tar", members, tar_format)
    try:
        theirs = [
            (sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")})
            for sample in tarfile_samples([{"url": url}])
        ]
    except ValueError as error:
        assert "duplicate file name" in str(error)  # noqa: PT017 - there we go on and they do not
        return
    ours = list(stream_shard(url, None))
    assert [(key, kept) for _, key, kept in ours] == theirs
    assert [ordinal for ordinal, _, _ in ours] == list(range(len(theirs)))


def test_members_that_are_not_kept_count_for_the_grouping(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", [("a.txt", b"1"), ("a.png", b"2"), ("a.txt", b"3"), ("b.cls", b"4")])
    assert list(stream_shard(url, lambda member: member.extension == "png")) == [
        (0, "a", {"png": b"2"}),
        (1, "a", {}),
        (2, "b", {}),
    ]


def test_upper_case_extensions(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", [("a.JPEG", b"1"), ("a.Cls", b"2")])
    assert list(stream_shard(url, None)) == [(0, "a", {"jpeg": b"1", "cls": b"2"})]


def test_a_cut_tar_ends_where_it_is_cut(tmp_path: Path) -> None:
    data = tar_bytes(samples([0, 1, 2]))
    (tmp_path / "a.tar").write_bytes(data[: len(data) // 2])
    found = list(stream_shard(str(tmp_path / "a.tar"), None))
    assert [key for _, key, _ in found][:1] == ["k0"]
    assert len(found) in (1, 2)


def test_a_remote_shard() -> None:
    fsspec.filesystem("memory").pipe_file("/stream/a.tar", tar_bytes(samples([0, 1])))
    assert [key for _, key, _ in stream_shard("memory://stream/a.tar", None)] == ["k0", "k1"]
    fsspec.filesystem("memory").rm("/stream", recursive=True)


def test_a_failed_read_is_not_the_end_of_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        """Breaks off after the first bytes, as a network file does."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 20480:
                raise OSError("connection reset")
            return super().read(size)

    monkeypatch.setattr(stream, "open_shard", lambda url: Failing(tar_bytes(samples([0] * 40))))
    with pytest.raises(OSError, match="connection reset"):
        list(stream_shard("a.tar", None))


def test_a_missing_shard(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tar"):
        list(stream_shard(str(tmp_path / "none.tar"), None))


class FarAway(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system that rayclean reaches by ranged requests, and counts their bytes."""

    protocol = "faraway"
    fetched = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data: bytes = super().cat_file(path, start, end, **kwargs)
        FarAway.fetched += len(data)
        return data


@pytest.fixture
def with_a_big_member(tmp_path: Path) -> Path:
    """Two samples, the first with a member of 1.5 GiB that takes no room on the disk."""
    big = tarfile.TarInfo("k0.mp4")
    big.size = 3 * 2**29
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(b"".join(member_bytes(*member) for member in sample("k0", 1)) + big.tobuf(tarfile.GNU_FORMAT))
        file.seek(big.size, os.SEEK_CUR)
        file.write(tar_bytes(sample("k1", 2)))
    return path


@pytest.mark.parametrize("scheme", ["", "faraway://"])
@pytest.mark.parametrize("reader", ["stream", "catalog"])
def test_a_member_that_nobody_asked_for_is_never_read(reader: str, scheme: str, with_a_big_member: Path) -> None:
    fsspec.register_implementation("faraway", FarAway, clobber=True)
    FarAway.fetched = 0
    url = f"{scheme}{with_a_big_member}"
    tracemalloc.start()
    try:
        if reader == "stream":
            found = [sorted(kept) for _, _, kept in stream_shard(url, lambda member: member.extension == "png")]
            assert found == [["png"], ["png"]]
        else:
            scan = scan_shard(url, ScanSettings(("png",), LabelField("cls"), None, ClassList.load(3), 1e6))
            assert (scan.rows["label"].to_pylist(), scan.truncated) == ([1, 2], "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * REMOTE_READ_BYTES
    assert FarAway.fetched < 4 * REMOTE_READ_BYTES
    assert bool(FarAway.fetched) == bool(scheme)
