"""Streaming sees WebDataset's samples; that they are the catalog's is in tests/catalog/test_agreement.py."""

from __future__ import annotations

import tarfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import tarfile_samples

from rayclean.errors import InputError
from rayclean.shards import stream
from rayclean.shards.stream import stream_shard
from tests.helpers import samples, tar_bytes, write_tar

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
    assert list(stream_shard(url, {"png"})) == [(0, "a", {"png": b"2"}), (1, "a", {}), (2, "b", {})]


def test_upper_case_extensions(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", [("a.JPEG", b"1"), ("a.Cls", b"2")])
    assert list(stream_shard(url, {"jpeg", "cls"})) == [(0, "a", {"jpeg": b"1", "cls": b"2"})]


def test_a_cut_tar_ends_where_it_is_cut(tmp_path: Path) -> None:
    data = tar_bytes(samples([0, 1, 2]))
    (tmp_path / "a.tar").write_bytes(data[: len(data) // 2])
    found = list(stream_shard(str(tmp_path / "a.tar"), {"png", "cls"}))
    assert [key for _, key, _ in found][:1] == ["k0"]
    assert len(found) in (1, 2)


def test_a_remote_shard() -> None:
    fsspec.filesystem("memory").pipe_file("/stream/a.tar", tar_bytes(samples([0, 1])))
    assert [key for _, key, _ in stream_shard("memory://stream/a.tar", None)] == ["k0", "k1"]
    fsspec.filesystem("memory").rm("/stream", recursive=True)


def test_a_failed_read_is_not_the_end_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        """Breaks off after the first bytes, as a network file does."""

        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, size: int) -> bytes:
            if not self.data:
                raise OSError("connection reset")
            part, self.data = self.data[:size], self.data[size:]
            return part

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *args: object) -> None:
            pass

    data = tar_bytes(samples([0] * 40))[:20480]
    monkeypatch.setattr(stream, "open_shard", lambda url: Failing(data))
    with pytest.raises(OSError, match="connection reset"):
        list(stream_shard("a.tar", None))


def test_a_missing_shard(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tar"):
        list(stream_shard(str(tmp_path / "none.tar"), None))
