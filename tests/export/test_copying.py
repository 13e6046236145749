"""What is copied has the bytes of the original, headers too; what is not is gone; a new label is in its place."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.scan import ScanSettings, scan_shard
from rayclean.errors import InputError, ShardChangedError
from rayclean.export.copying import Copied, Wanted, copy_samples
from rayclean.shards.tar import scan_members
from tests.helpers import BLOCK, Content, member_bytes, tar_bytes
from tools.faults.tar_damage import DAMAGES, damaged_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "folder/" + "n" * 120


def copied(data: bytes, wanted: dict[int, Wanted]) -> Copied:
    return copy_samples(io.BytesIO(data), "x.tar", wanted, "cls")


def members(samples: list[tuple[str, list[str]]]) -> list[Content]:
    return [(f"{key}.{extension}", f"{key}{extension}".encode() * 99) for key, each in samples for extension in each]


samples_of_tars = st.lists(
    st.sampled_from([["cls", "png"], ["png"], ["cls", "json", "png", "cap.txt"], ["PNG", "cls"]]), max_size=6
)


@given(samples_of_tars, st.sampled_from(FORMATS), st.booleans(), st.data())
def test_members_are_copied_byte_for_byte(
    extensions: list[list[str]], tar_format: int, is_long: bool, data: st.DataObject
) -> None:
    key = LONG if is_long and tar_format != tarfile.USTAR_FORMAT else "k"
    samples = [(f"{key}{i}", each) for i, each in enumerate(extensions)]
    chosen = data.draw(st.sets(st.integers(0, max(len(samples) - 1, 0)))) if samples else set()
    wanted = {i: Wanted(samples[i][0], None) for i in chosen}
    found = copied(tar_bytes(members(samples), tar_format), wanted)
    expected = members([samples[i] for i in sorted(chosen)])
    assert found.samples == len(chosen)
    if not chosen:
        assert not found.data
        return
    content = b"".join(member_bytes(*member, tar_format) for member in expected)
    assert bytes(found.data[: len(content)]) == content
    assert not any(found.data[len(content) :])
    assert len(found.data) % tarfile.RECORDSIZE == 0
    assert len(found.data) - len(content) >= 2 * BLOCK


@pytest.mark.parametrize("tar_format", FORMATS)
@pytest.mark.parametrize("content", [b"", b"7", b"x" * 512, b"y" * 513])
def test_a_new_label_changes_one_member(tar_format: int, content: bytes) -> None:
    samples = [("a", ["cls", "png"]), ("bé" * 60 if tar_format != tarfile.USTAR_FORMAT else "b", ["cls", "png"])]
    wanted = {i: Wanted(key, (lambda _: content) if i else None) for i, (key, _) in enumerate(samples)}
    found = copied(tar_bytes(members(samples), tar_format), wanted)
    assert (found.samples, found.changed) == (2, 1)
    with tarfile.open(fileobj=io.BytesIO(found.data)) as tar:
        read = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    expected = dict(members(samples))
    expected[f"{samples[1][0]}.cls"] = content
    assert read == expected
    list(scan_members(io.BytesIO(found.data), "x.tar"))  # whole, as the catalog wants it


def test_what_a_member_is_beside_its_content_stays(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.cls")
        info.size, info.mtime, info.mode, info.uid, info.uname = 3, 1234567890.25, 0o600, 7, "somebody"
        info.pax_headers = {"comment": "c", "size": "3"}
        tar.addfile(info, io.BytesIO(b"old"))
    found = copied(sink.getvalue(), {0: Wanted("a", lambda old: old + b" and new")})
    with tarfile.open(fileobj=io.BytesIO(found.data)) as tar:
        (now,) = tar
        assert (now.size, now.mtime, now.mode, now.uid, now.uname) == (11, 1234567890.25, 0o600, 7, "somebody")
        assert now.pax_headers["comment"] == "c"


def test_what_lies_between_samples_is_left_out() -> None:
    folder = member_bytes("dir/", b"", kind=tarfile.DIRTYPE)
    link = member_bytes("a.link", b"", kind=tarfile.SYMTYPE)
    parts = [
        folder,
        *(member_bytes(*each) for each in members([("a", ["cls", "png"])])),
        link,
        member_bytes("readme", b"?"),
        member_bytes("__meta__/x.json", b"{}"),
        *(member_bytes(*each) for each in members([("b", ["cls"])])),
    ]
    found = copied(b"".join(parts) + bytes(2 * BLOCK), {0: Wanted("a", None), 1: Wanted("b", None)})
    assert [member.name for member in scan_members(io.BytesIO(found.data), "x")] == ["a.cls", "a.png", "b.cls"]


def test_a_repeated_member_starts_a_new_sample() -> None:
    data = tar_bytes([("a.cls", b"0"), ("a.png", b"first"), ("a.cls", b"1"), ("a.png", b"second")])
    found = copied(data, {1: Wanted("a", None)})
    assert bytes(found.data[: 4 * BLOCK]) == data[4 * BLOCK : 8 * BLOCK]


@pytest.mark.parametrize("cut", range(300, 6 * BLOCK, 100))
def test_of_a_broken_tar_the_samples_before_the_break_are_there(cut: int) -> None:
    data = tar_bytes([(f"k{i}.cls", b"0") for i in range(3)])[:cut]
    whole = max(min(cut // (2 * BLOCK) - (cut % (2 * BLOCK) == 0), 3), 0)
    wanted = {i: Wanted(f"k{i}", None) for i in range(whole)}
    assert copied(data, wanted).samples == whole
    with pytest.raises(ShardChangedError):
        copied(data, wanted | {3: Wanted("k3", None)})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({0: Wanted("b", None)}, "sample 0 is 'k0', expected 'b'"),
        ({5: Wanted("k5", None)}, "0 of the samples, expected 1"),
    ],
)
def test_another_tar_than_the_cataloged_one_is_an_error(wanted: dict[int, Wanted], said: str) -> None:
    with pytest.raises(ShardChangedError, match=said):
        copied(tar_bytes([("k0.cls", b"0")]), wanted)


def _with_global_header(headers: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        for name in ("a.cls", "b.cls"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"0"))
    return sink.getvalue()


def test_a_global_header_that_says_something_is_refused() -> None:
    wanted = {1: Wanted("b", None)}
    assert copied(_with_global_header({"comment": "by git"}), wanted).samples == 1
    with pytest.raises(InputError, match=r"global pax header \(gname\)"):
        copied(_with_global_header({"gname": "everybody"}), wanted)


@pytest.mark.parametrize("number", range(2 * len(DAMAGES)))
def test_of_a_damaged_tar_just_the_catalogs_rows_are_copied(number: int, tmp_path: Path) -> None:
    kind, tar = damaged_tar(number, 0)
    if tar.hole[1]:  # a copy is held in memory
        pytest.skip(kind)
    tar.write(tmp_path / "a.tar")
    settings = ScanSettings(("png",), LabelField("cls"), None, ClassList.load(3), 1e6)
    rows = scan_shard(str(tmp_path / "a.tar"), settings).rows.to_pylist()
    try:
        found = copied(bytes(tar.data), {row["sample"]: Wanted(row["key"], None) for row in rows})
    except InputError as error:
        assert "global pax header" in str(error)  # noqa: PT017 - what a copy would lose
        return
    (tmp_path / "b.tar").write_bytes(found.data)
    again = scan_shard(str(tmp_path / "b.tar"), settings).rows.to_pylist() if rows else []
    assert [(row["key"], row["digest"]) for row in again] == [(row["key"], row["digest"]) for row in rows]
