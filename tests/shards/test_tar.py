"""Members, their offsets, the grouping rule, and that no break of a tar stays hidden."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext, tar_file_iterator

from rayclean.errors import InputError
from rayclean.shards.tar import Member, TruncatedTar, group_members, scan_members, split_name
from tests.helpers import BLOCK, Content, member_bytes, samples, tar_bytes

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
CONTENTS = [("a.cls", b"1"), ("a.png", b"x" * 700), ("README", b"?"), ("d/b.PNG", b""), ("b.txt", bytes(512))]


def scan(data: bytes) -> tuple[list[Member], TruncatedTar | None]:
    """Members up to the end or the break, and the break."""
    members = []
    try:
        for member in scan_members(io.BytesIO(data), "shard.tar"):
            members.append(member)
    except TruncatedTar as broken:
        return members, broken
    return members, None


names = st.text(st.sampled_from("ab._/\n\u00e9P"), max_size=12) | st.text(max_size=12)


@given(names)
@example("a.b/c.d.e")
@example("a/.hidden")
@example("./q.PNG")
@example("../../etc/passwd.png")
@example("a.\nb/c.png")
def test_names_split_as_webdataset_splits_them(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    header = tar_file_iterator(io.BytesIO(tar_bytes([(name, b"")], tarfile.PAX_FORMAT)))
    # What tarfile makes of a name (trailing slashes, NUL) is its own; ask for the one that WebDataset gets.
    for file in header:
        key, extension = base_plus_ext(file["fname"])
        expected = None if key is None else (key, extension.lower())
        assert split_name(file["fname"]) == expected


@pytest.mark.parametrize("name", ["__meta__.json__", "__x.y__", "__MACOSX__/a.png", "plain", "a/b", "", "x.y/z"])
def test_names_that_webdataset_skips(name: str) -> None:
    assert split_name(name) is None


def test_meta_names_with_an_extension_are_samples() -> None:
    assert split_name("__meta__.json") == ("__meta__", "json")


def test_a_name_that_is_no_utf8_still_fits_a_table() -> None:
    raw = b"k\xff\xfe.png".decode("utf-8", "surrogateescape")
    assert split_name(raw) == ("k\\xff\\xfe", "png")
    members, broken = scan(tar_bytes([(raw, b"1")]))
    assert broken is None
    assert members[0].name == "k\\xff\\xfe.png"


@pytest.mark.parametrize("tar_format", FORMATS)
def test_offsets_point_to_the_content(tar_format: int) -> None:
    contents: list[Content] = [*CONTENTS, ("l" * 300 + "/\u00fc.png", b"long"), ("last.cls", b"2")]
    if tar_format == tarfile.USTAR_FORMAT:
        contents = [content for content in contents if len(content[0]) < 100]
    data = tar_bytes(contents, tar_format)
    members, broken = scan(data)
    assert broken is None
    found = [(member.name, data[member.offset : member.offset + member.size]) for member in members]
    assert found == [content for content in contents if content[0] != "README"]
    assert all((member.key, member.extension) == split_name(member.name) for member in members)


def test_only_regular_files_count() -> None:
    data = member_bytes("d.x", b"", kind=tarfile.DIRTYPE) + member_bytes("f.png", b"", kind=tarfile.FIFOTYPE)
    members, broken = scan(data + tar_bytes([("a.png", b"1")]))
    assert ([member.name for member in members], broken) == (["a.png"], None)


def test_a_hard_link_has_the_content_of_the_file_before_it(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        (tmp_path / "0.cls").write_bytes(b"7")
        tar.add(tmp_path / "0.cls", "d/0.cls")
        for name, kind, target in (
            ("1.cls", tarfile.LNKTYPE, "d/0.cls"),
            ("2.cls", tarfile.LNKTYPE, "d/9.cls"),
            ("3.cls", tarfile.SYMTYPE, "d/0.cls"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    data = (tmp_path / "a.tar").read_bytes()
    members, broken = scan(data)
    assert broken is None
    assert [(each.key, each.link, data[each.offset : each.offset + each.size]) for each in members] == [
        ("d/0", "", b"7"),
        ("1", "", b"7"),
        ("2", "d/9.cls", b""),
        ("3", "d/0.cls", b""),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/._0.png", "._*"),
        ("._0.png", "._*"),
        ("a/.DS_Store", ".ds_store"),
        ("Thumbs.db", "thumbs.db"),
        ("a/__MACOSX/b/._0.png", "._*"),
        ("__MACOSX/0.png", ".png"),
        ("a/README", "no extension"),
    ],
)
def test_files_of_nobody_are_counted_and_belong_to_no_sample(name: str, kind: str) -> None:
    strays: Counter[str] = Counter()
    data = tar_bytes([("0.cls", b"1"), (name, b"x"), ("0.png", b"2")])
    found = list(scan_members(io.BytesIO(data), "a.tar", strays))
    assert [(each.key, each.extension) for each in found] == [("0", "cls"), ("0", "png")]
    assert strays == {kind: 1}


@pytest.mark.parametrize("data", [tar_bytes([]), bytes(10240), bytes(BLOCK), tar_bytes([("README", b"1")])])
def test_a_tar_without_samples_is_empty(data: bytes) -> None:
    assert scan(data) == ([], None)


@pytest.mark.parametrize("data", [b"", b"garbage", b"g" * 5000, b"\x89PNG\r\n\x1a\n" + b"x" * 2000, bytes(100)])
def test_not_a_tar(data: bytes) -> None:
    with pytest.raises(InputError, match=r"shard\.tar: not a tar"):
        scan(data)


@pytest.mark.parametrize(
    ("tool", "data"),
    [
        ("gzip", gzip.compress(tar_bytes(CONTENTS))),
        ("bzip2", bz2.compress(tar_bytes(CONTENTS))),
        ("xz", lzma.compress(tar_bytes(CONTENTS))),
        ("zstd", b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4),
    ],
)
def test_compressed_content_is_refused_whatever_its_name(tool: str, data: bytes) -> None:
    with pytest.raises(InputError, match=rf"{tool} -dc shard\.tar > shard\.unpacked\.tar"):
        scan(data)


def test_a_plain_tar_may_start_like_a_compressed_one() -> None:
    assert [member.key for member in scan(tar_bytes([("BZh9.png", b"1")]))[0]] == ["BZh9"]


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_a_sparse_member_ends_the_shard_with_the_way_out(kind: str) -> None:
    sparse = member_bytes("b.png", b"", tarfile.GNU_FORMAT, kind=tarfile.GNUTYPE_SPARSE)
    if kind == "pax":
        sparse = pax_header({"GNU.sparse.major": "1", "GNU.sparse.name": "b.png"}) + member_bytes("x/b.png", b"0\n")
    members, broken = scan(member_bytes("a.png", b"1") + sparse + tar_bytes([("c.png", b"1")]))
    assert [member.name for member in members] == ["a.png"]
    assert broken is not None
    assert "'b.png' at byte 1024 is stored as a sparse file" in broken.reason
    assert "--sparse" in broken.reason


def pax_header(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header with these records."""
    return member_bytes("pax", b"".join(pax_record(name, value) for name, value in records.items()), kind=kind)


def pax_record(name: str, value: str) -> bytes:
    """`length name=value` and a line feed; the length counts itself."""
    rest = f" {name}={value}\n".encode()
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


HEADERS_BEFORE = {
    "1,500 long names": member_bytes("long", b"x.png\0", kind=tarfile.GNUTYPE_LONGNAME) * 1500,
    "1,500 pax headers": pax_header({"comment": "x"}) * 1500,
    "1,500 global headers": pax_header({"comment": "x"}, tarfile.XGLTYPE) * 1500,
    "a long name of 2^40 bytes": member_bytes("long", b"", kind=tarfile.GNUTYPE_LONGNAME),
    "a pax header of 2^40 bytes": member_bytes("pax", b"", kind=tarfile.XHDTYPE),
    "a size that is no number": pax_header({"size": "NaN"}),
    "a negative size": pax_header({"size": "-512"}),
    "a size of 5,000 digits": pax_header({"size": "9" * 5000}),
    "a record longer than its header": member_bytes("pax", b"99 path=a.png\n", kind=tarfile.XHDTYPE),
    "a record without an end": member_bytes("pax", b"14 path=a.png.", kind=tarfile.XHDTYPE),
    "a record of length 0": member_bytes("pax", b"0 path=a.png\n", kind=tarfile.XHDTYPE),
    "a record without a name": member_bytes("pax", b"garbage", kind=tarfile.XHDTYPE),
    "nothing after it": pax_header({"path": "b.png"}) + bytes(2 * BLOCK),
}


@pytest.mark.parametrize("what", HEADERS_BEFORE)
def test_headers_that_make_no_sense_end_the_shard_where_they_are(what: str) -> None:
    headers = HEADERS_BEFORE[what]
    if "2^40" in what:
        huge = tarfile.TarInfo("huge")
        huge.type, huge.size = headers[156:157], 2**40
        headers = huge.tobuf(tarfile.GNU_FORMAT)
    members, broken = scan(member_bytes("a.png", b"1") + headers + tar_bytes([("b.png", b"2"), ("c.png", b"3")]))
    assert [member.name for member in members] == ["a.png"]
    assert broken is not None
    assert "byte 1024" in broken.reason or "byte 2560" in broken.reason, broken.reason


@pytest.mark.parametrize("number", [1, 4, 16])
def test_a_few_headers_before_a_member_are_one_member_and_the_first_counts(number: int) -> None:
    headers = b"".join(pax_header({"path": f"{i}.png"}) for i in range(number))
    members, broken = scan(headers + tar_bytes([("x.png", b"12")]))
    assert ([(member.name, member.size) for member in members], broken) == ([("0.png", 2)], None)


def test_a_size_in_a_pax_header_counts() -> None:
    content = member_bytes("a.png", b"x" * 700)
    header = tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT)  # says 0 bytes
    members, broken = scan(pax_header({"size": "700"}) + header + content[BLOCK:] + tar_bytes([("b.png", b"")]))
    assert ([(member.name, member.size) for member in members], broken) == ([("a.png", 700), ("b.png", 0)], None)


def test_a_damaged_first_header_is_a_break_and_no_other_kind_of_file() -> None:
    data = tar_bytes(samples([0, 1]))
    for damaged in (b"\xff" * 20 + data[20:], b"\xff" * BLOCK + data[BLOCK:]):
        members, broken = scan(damaged)
        assert members == []
        assert broken is not None
        assert "corrupt header at byte 0" in broken.reason


@pytest.mark.parametrize("tar_format", FORMATS)
def test_every_cut_is_noticed_and_keeps_the_whole_members(tar_format: int) -> None:
    data = tar_bytes(CONTENTS, tar_format)
    whole, _ = scan(data)
    for cut in range(BLOCK, len(data)):
        members, broken = scan(data[:cut])
        assert members == [member for member in whole if member.offset + member.size <= cut]
        assert broken is not None
        assert "byte" in broken.reason


def test_the_member_that_is_cut_is_named() -> None:
    data = tar_bytes(CONTENTS)
    members, broken = scan(data[: BLOCK * 3 + 10])  # a.cls takes two blocks, then the header of a.png
    assert [member.name for member in members] == ["a.cls"]
    assert broken is not None
    assert broken.member is not None
    assert broken.member.name == "a.png"


@pytest.mark.parametrize("damage", [b"\xff" * BLOCK, b"\0" * BLOCK, b"\0" * 2 * BLOCK])
def test_a_damaged_header_in_the_middle(damage: bytes) -> None:
    data = tar_bytes(samples([0, 1, 2]))
    whole, _ = scan(data)
    start = whole[2].offset - BLOCK
    members, broken = scan(data[:start] + damage + data[start + len(damage) :])
    assert members == whole[:2]
    assert broken is not None


def test_a_negative_size_ends_the_scan() -> None:
    data = bytearray(tar_bytes([("a.png", b"1"), ("b.png", b"2")]))
    header = tarfile.TarInfo("b.png")
    header.size = -2048
    data[2 * BLOCK : 3 * BLOCK] = header.tobuf(tarfile.GNU_FORMAT)
    members, broken = scan(bytes(data))
    assert [member.name for member in members] == ["a.png"]
    assert broken is not None
    assert "corrupt header" in broken.reason


@given(st.binary(max_size=40), st.integers(0, 7 * BLOCK - 1))
def test_no_damage_makes_more_than_a_break_or_a_refusal(damage: bytes, at: int) -> None:
    data = tar_bytes([("a.png", b"1"), ("b.png", b"x" * 600)], tarfile.PAX_FORMAT)
    try:
        scan(data[:at] + damage + data[at + len(damage) :])
    except InputError as error:
        assert "shard.tar" in str(error)  # noqa: PT017 - either is right


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y"]))))
def test_the_grouping_rule(items: list[tuple[str, str]]) -> None:
    groups = list(group_members(items, lambda item: item))
    assert [item for group in groups for item in group] == items
    for group in groups:
        assert len({key for key, _ in group}) == 1
        assert len({extension for _, extension in group}) == len(group)
    for one, two in pairwise(groups):  # no two groups could have been one
        assert two[0][0] != one[0][0] or two[0][1] in {extension for _, extension in one}


def test_a_scan_reads_from_a_file_that_the_caller_uses_too(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(CONTENTS))
    with open(tmp_path / "a.tar", "rb") as file:
        found = []
        for member in scan_members(file, "a.tar"):
            file.seek(member.offset)
            found.append(file.read(member.size))
    assert found == [content for name, content in CONTENTS if name != "README"]
