"""Tars with every kind of damage that somebody thought of, each from a number: the same number is the same file."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

BLOCK = 512
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
CLASSES = 3
GIB = 2**30


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = tuple(_png(seed) for seed in range(12))
LABELS = tuple(str(label).encode() for label in range(CLASSES))


@dataclass
class Tar:
    """A tar in the making.

    Attributes:
        data: its bytes so far.
        headers: where the last header of each member lies.
        starts: where the first one does.
        hole: where zeros are put in that take no room on the disk, and how many.
    """

    data: bytearray = field(default_factory=bytearray)
    headers: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    hole: tuple[int, int] = (0, 0)

    def add(self, name: str, content: bytes, tar_format: int, kind: bytes = b"0") -> None:
        """Appends a member."""
        info = tarfile.TarInfo(name)
        info.size, info.type = len(content), kind
        header: bytes = info.tobuf(tar_format)  # type: ignore[arg-type]
        self.starts.append(len(self.data))
        self.headers.append(len(self.data) + len(header) - BLOCK)
        self.data += header + content + bytes(-len(content) % BLOCK)

    def put(self, at: int, data: bytes) -> None:
        """Puts bytes in."""
        self.data[at:at] = data

    def change(self, header: int, at: int, data: bytes) -> None:
        """Changes bytes of a header, whose checksum then fits again."""
        self.data[header + at : header + at + len(data)] = data
        self.data[header + 148 : header + 156] = b" " * 8
        total = sum(self.data[header : header + BLOCK])
        self.data[header + 148 : header + 156] = b"%06o\0 " % total

    def write(self, path: Path) -> None:
        """Writes the file."""
        at, length = self.hole
        with path.open("wb") as file:
            file.write(self.data[:at])
            file.seek(at + length)
            file.write(self.data[at:])
            file.truncate()


def whole_tar(rng: random.Random) -> Tar:
    """A tar without damage: samples with short and long names, and members that nobody asks for."""
    tar, tar_format = Tar(), rng.choice(FORMATS)
    for i in range(rng.randint(3, 7)):
        is_long = tar_format != tarfile.USTAR_FORMAT and rng.random() < 0.4
        key = "l" * 120 + f"/ü{i}" if is_long else f"{rng.choice(['', 'd/', 'd.e/f/'])}k{i}"
        members = [("cls", rng.choice(LABELS)), ("png", rng.choice(IMAGES)), ("txt", b"t" * rng.choice([0, 40, 1500]))]
        for extension, content in rng.sample(members, 3):
            tar.add(f"{key}.{extension}", content, tar_format)
        if rng.random() < 0.2:
            tar.add(rng.choice(["README", "d", "__meta__/x.json"]), b"?", tar_format)
            tar.add("folder.png", b"", tar_format, tarfile.DIRTYPE)
    tar.data += bytes(2 * BLOCK)
    return tar


def header_of(kind: bytes, size: int, name: str = "header") -> bytes:
    """One header block that claims a size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def extension(kind: bytes, content: bytes) -> bytes:
    """A header that says more of the next member."""
    return header_of(kind, len(content)) + content + bytes(-len(content) % BLOCK)


def record(name: bytes, value: bytes) -> bytes:
    """A record of a pax header."""
    rest = b" " + name + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _flipped(rng: random.Random, tar: Tar, start: int, stop: int) -> None:
    for _ in range(rng.randint(1, 4)):
        tar.data[rng.randrange(start, stop)] ^= rng.randrange(1, 256)


def flipped_header(rng: random.Random, tar: Tar) -> None:
    """Bytes of a header."""
    header = rng.choice(tar.headers)
    _flipped(rng, tar, header, header + BLOCK)


def flipped_header_that_fits(rng: random.Random, tar: Tar) -> None:
    """Bytes of a header, and its checksum fits."""
    header = rng.choice(tar.headers)
    _flipped(rng, tar, header, header + BLOCK)
    tar.change(header, 0, b"")


def flipped_anywhere(rng: random.Random, tar: Tar) -> None:
    """Bytes anywhere, contents too."""
    _flipped(rng, tar, 0, len(tar.data))


def huge_size(rng: random.Random, tar: Tar) -> None:
    """A member that claims up to 2^87 bytes."""
    size = rng.choice([2**33 - 1, 2**40, 2**62, 2**63, 2**64, 2**87])
    tar.change(rng.choice(tar.headers), 124, b"\x80" + size.to_bytes(11, "big"))


def negative_size(rng: random.Random, tar: Tar) -> None:
    """A member of less than nothing."""
    size = rng.choice([-1, -512, -(2**40), -(2**80)])
    tar.change(rng.choice(tar.headers), 124, b"\xff" + (256**11 + size).to_bytes(11, "big"))


def size_without_digits(rng: random.Random, tar: Tar) -> None:
    """A size that is no octal number."""
    sizes = [
        b"99999999999\0",
        b"0x1F\0",
        b"NaN",
        b"-1\0",
        b"\0" * 12,
        b" " * 12,
        b"\xfe" * 12,
        b"12 34\0",
        b"\x81" + b"\0" * 11,
        b"+10\0",
        b"1_0\0",
        b"0o10\0",
        b"  12 \0junk  ",
    ]
    tar.change(rng.choice(tar.headers), 124, rng.choice(sizes))


def other_size(rng: random.Random, tar: Tar) -> None:
    """A size that makes the next header lie elsewhere."""
    tar.change(rng.choice(tar.headers), 124, b"%011o\0" % rng.choice([0, 1, 511, 512, 513, 1024, 5000, 20000]))


def cut(rng: random.Random, tar: Tar) -> None:
    """Cut at any byte."""
    del tar.data[rng.randrange(BLOCK, len(tar.data)) :]


def block_removed(rng: random.Random, tar: Tar) -> None:
    """Some blocks are missing."""
    at = rng.randrange(len(tar.data) // BLOCK) * BLOCK
    del tar.data[at : at + BLOCK * rng.randint(1, 4)]


def block_repeated(rng: random.Random, tar: Tar) -> None:
    """Some blocks are there twice."""
    at = rng.randrange(len(tar.data) // BLOCK) * BLOCK
    tar.put(rng.choice([at, rng.choice(tar.starts)]), bytes(tar.data[at : at + BLOCK * rng.randint(1, 8)]))


def blocks_swapped(rng: random.Random, tar: Tar) -> None:
    """Two blocks in each other's place."""
    one, two = (rng.randrange(len(tar.data) // BLOCK) * BLOCK for _ in range(2))
    first, second = bytes(tar.data[one : one + BLOCK]), bytes(tar.data[two : two + BLOCK])
    tar.data[one : one + BLOCK], tar.data[two : two + BLOCK] = second, first


def bytes_put_in(rng: random.Random, tar: Tar) -> None:
    """Some bytes too many, so that nothing is aligned after them."""
    tar.put(rng.randrange(len(tar.data)), rng.randbytes(rng.choice([1, 7, 511, 512])))


def chained(rng: random.Random, tar: Tar) -> None:
    """Headers in a row, of one kind."""
    kind = rng.choice([b"L", b"K", b"x", b"X", b"g"])
    content = b"some/name.png\0" if kind in b"LK" else record(b"comment", b"c")
    tar.put(rng.choice(tar.starts), extension(kind, content) * rng.choice([1, 15, 16, 17, 300, 1500, 3000]))


def chained_kinds(rng: random.Random, tar: Tar) -> None:
    """Headers in a row, of all kinds."""
    headers = [extension(b"L", b"k.png"), extension(b"K", b"l"), extension(b"g", record(b"a", b"b"))]
    headers += [extension(kind, record(b"path", b"q.cls")) for kind in (b"x", b"X")]
    tar.put(rng.choice(tar.starts), b"".join(rng.choices(headers, k=rng.choice([2, 5, 16, 17, 1500]))))


def huge_header(rng: random.Random, tar: Tar) -> None:
    """A header that claims a size it has not."""
    size = rng.choice([-512, -1, 2**20, 2**20 + 1, GIB, 2**40, 2**62, 2**80])
    tar.put(rng.choice(tar.starts), header_of(rng.choice([b"L", b"K", b"x", b"X", b"g"]), size))


def long_header(rng: random.Random, tar: Tar) -> None:
    """A header that has the size it claims, up to a gibibyte of zeros."""
    at, size = rng.choice(tar.starts), rng.choice([2**20 - BLOCK, 2**20, 2**20 + BLOCK, 2**28, GIB])
    tar.put(at, header_of(rng.choice([b"L", b"K", b"x", b"X", b"g"]), size))
    tar.hole = (at + BLOCK, size)


def broken_records(rng: random.Random, tar: Tar) -> None:
    """A pax header whose records make no sense."""
    good = record(b"path", b"k0.png")
    texts = [
        b"0 path=a\n",
        b"99 path=a\n",
        b"5 path=a\n",
        b"11 path=ab.",
        b"path=a\n",
        b"x path=a\n",
        b"9 patha\n",
        b"10 =abcde\n",
        b"9" * 5000 + b" a=b\n",
        b"-9 path=a\n",
        good + b"junk",
        good + b"\0\0\0",
        b"\0" * 40,
        b"",
        good[:-1],
        b"\n",
        record(b"path", b"\xff\xfe.png"),
        record(b"hdrcharset", b"BINARY") + good,
        record(b"a", b"") * 40,
    ]
    tar.put(rng.choice(tar.starts), extension(rng.choice([b"x", b"X", b"g"]), rng.choice(texts)))


def pax_size(rng: random.Random, tar: Tar) -> None:
    """A size in a pax header, mostly another one."""
    sizes = [
        b"NaN",
        b"-1",
        b"-512",
        b"1e9",
        b"1.5",
        b"",
        b" 12",
        b"0",
        b"1",
        b"600",
        b"9" * 18,
        b"9" * 19,
        b"9" * 5000,
        b"1099511627776",
    ]
    tar.put(rng.choice(tar.starts), extension(rng.choice([b"x", b"g"]), record(b"size", rng.choice(sizes))))


def pax_path(rng: random.Random, tar: Tar) -> None:
    """A name in a pax header or a long name, mostly a strange one."""
    names = [
        b"",
        b"/",
        b".",
        b"a",
        b"x" * 100_000 + b".png",
        b"../../k.png",
        b"k\0.png",
        b"k.png/",
        b"k.png//",
        b"a\nb.PNG",
        b"__a__/b.png",
        b"\xff.cls",
    ]
    name = rng.choice(names)
    kind = rng.choice([b"x", b"g", b"L"])
    tar.put(rng.choice(tar.starts), extension(kind, name if kind == b"L" else record(b"path", name)))


def sparse(rng: random.Random, tar: Tar) -> None:
    """A sparse member of any of the four kinds, with maps that go on or make no sense."""
    maps = [
        (b"GNU.sparse.map", b"0,1,x"),
        (b"GNU.sparse.size", b"NaN"),
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.realsize", b"-1"),
    ]
    at = rng.choice(tar.starts)
    if rng.random() < 0.5:
        header = Tar(bytearray(header_of(b"S", 512, "k0.png")))
        header.change(0, 482, b"\1")  # its map goes on in the next block
        tar.put(at, bytes(header.data) + (b"\1" * BLOCK) * rng.randint(0, 3))
    else:
        major = record(b"GNU.sparse.minor", b"0") if rng.random() < 0.5 else b""
        tar.put(at, extension(b"x", record(*rng.choice(maps)) + major))


def other_kind(rng: random.Random, tar: Tar) -> None:
    """A member of another kind: a link, a folder, a device, one that no standard knows."""
    tar.change(rng.choice(tar.headers), 156, bytes([rng.choice([*b"\x001234567DMNVSLKxXgAZ", rng.randrange(256)])]))


def links(rng: random.Random, tar: Tar) -> None:
    """Links and folders among the members, some with a size."""
    tar.put(
        rng.choice(tar.starts),
        header_of(rng.choice([b"1", b"2", b"5", b"6", b"Z"]), rng.choice([0, 0, 512, 2**40, 2**80]), "k0.png"),
    )


def other_checksum(rng: random.Random, tar: Tar) -> None:
    """A checksum in another form, right or wrong."""
    header = rng.choice(tar.headers)
    block = bytes(tar.data[header : header + BLOCK])
    total = sum(block[:148]) + 256 + sum(block[156:])
    forms = [
        b"%o" % total,
        b"%6o \0" % total,
        b"\x80" + total.to_bytes(7, "big"),
        b"%o" % (total + 1),
        b"\0" * 8,
        b"99999999",
        b" " * 8,
    ]
    tar.data[header + 148 : header + 156] = rng.choice(forms).ljust(8, b"\0")


def zeros_put_in(rng: random.Random, tar: Tar) -> None:
    """Blocks of zeros before a member."""
    tar.put(rng.choice(tar.starts), bytes(BLOCK * rng.choice([1, 2, 3, 20])))


def other_end(rng: random.Random, tar: Tar) -> None:
    """An end that is missing, half, or not the last."""
    ends = [
        b"",
        bytes(BLOCK),
        bytes(BLOCK) + b"\1" * BLOCK,
        bytes(1025),
        bytes(20 * BLOCK),
        bytes(1024) + b"x",
        bytes(1024 + BLOCK) + bytes(tar.data),
    ]
    tar.data[-2 * BLOCK :] = rng.choice(ends)


def big_member(rng: random.Random, tar: Tar) -> None:
    """A member of up to a gibibyte that nobody asks for."""
    at, size = rng.choice(tar.starts), rng.choice([2**28, GIB])
    tar.put(at, header_of(b"0", size, rng.choice(["k1.mp4", "big.bin", "README"])))
    tar.hole = (at + BLOCK, size)


def big_content(rng: random.Random, tar: Tar) -> None:
    """An image or a label of up to a gibibyte."""
    at, size = rng.choice(tar.starts), rng.choice([2**28, GIB])
    tar.put(at, header_of(b"0", size, rng.choice(["big.png", "big.cls"])))
    tar.hole = (at + BLOCK, size)


def other_name(rng: random.Random, tar: Tar) -> None:
    """A name that is empty, in no alphabet, or another's."""
    names = [
        b"",
        b"nodot",
        b".png",
        b"k0.png",
        b"k1.CLS",
        b"\xff\xfe.png",
        b"__x__",
        b"a.b/c",
        b"k2.png/",
        b"." * 100,
        b"/" * 100,
    ]
    tar.change(rng.choice(tar.headers), 0, rng.choice(names).ljust(100, b"\0"))


def garbage(rng: random.Random, tar: Tar) -> None:
    """Noise instead of some blocks."""
    at = rng.randrange(len(tar.data) // BLOCK) * BLOCK
    stop = min(at + BLOCK * rng.randint(1, 3), len(tar.data))
    tar.data[at:stop] = rng.randbytes(stop - at)


DAMAGES: tuple[Callable[[random.Random, Tar], None], ...] = (
    flipped_header,
    flipped_header_that_fits,
    flipped_anywhere,
    huge_size,
    negative_size,
    size_without_digits,
    other_size,
    cut,
    block_removed,
    block_repeated,
    blocks_swapped,
    bytes_put_in,
    chained,
    chained_kinds,
    huge_header,
    long_header,
    broken_records,
    pax_size,
    pax_path,
    sparse,
    other_kind,
    links,
    other_checksum,
    zeros_put_in,
    other_end,
    big_member,
    big_content,
    other_name,
    garbage,
)


def damaged_tar(number: int, seed: int) -> tuple[str, Tar]:
    """The name of the damage, and a tar that has it."""
    rng = random.Random(f"{seed} {number}")
    damage = DAMAGES[number % len(DAMAGES)]
    tar = whole_tar(rng)
    damage(rng, tar)
    return damage.__name__, tar
