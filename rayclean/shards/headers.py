"""The headers of a tar's members, one after the other, in bounded memory whatever they claim.

`tarfile` decodes the blocks; it does not walk them, since it follows chained headers by recursion, reads a header as
large as it says it is, and takes a size that it cannot read for 0.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from rayclean.errors import InputError
from rayclean.shards.compression import compressed_error, tool_of_content

BLOCK = tarfile.BLOCKSIZE
# Headers before one member: pax writers take two, GNU's two. A name is at most some kilobytes; attributes may be more.
MAX_EXTENSIONS = 16
MAX_EXTENSION_BYTES = 2**20
# What is searched for a header before a file whose first one is damaged is called no tar.
SEARCHED_BYTES = 2**20

_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_LONG_NAMES, *_PAX, tarfile.XGLTYPE)
_RECORD = re.compile(rb"([0-9]{1,7}) ([^=]+)=")
_OCTAL = re.compile(rb" *[0-7]* *(\0|\Z)")
_SIZE = re.compile(r"[0-9]{1,18}")


class BrokenHeader(Exception):
    """No further member can be found; the text says why, and at which byte."""


class TarHeaders:
    """Iterates over the members of a tar: ustar, GNU and pax headers.

    Each is a `tarfile.TarInfo` with the name and size that count, `offset` of its first header, `offset_data` of its
    content and the pax records that apply to it. Where several headers before a member say the same, the first counts.

    Args:
        file: seekable; between two members the caller may read elsewhere.
        url: of the shard, for errors.

    Attributes:
        shared: records of global pax headers so far, which apply to all later members.
    """

    def __init__(self, file: BinaryIO, url: str) -> None:
        self.file, self.url = file, url
        self.shared: dict[str, str] = {}
        self._shared_bytes = 0

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yields each member, also one whose content is cut.

        Raises:
            BrokenHeader: after the last member, where the tar is cut or damaged, or holds what has no one offset.
            InputError: not a tar, or compressed.
        """
        _refuse_no_tar(self.file, self.url)
        end, position = self.file.seek(0, os.SEEK_END), 0
        while True:
            position, info = self._next(position)
            if info is None:
                break
            yield info
            size = info.size if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES else 0
            if info.offset_data + size > end:
                raise BrokenHeader(f"cut at byte {end} inside member {info.name!r}")
            position = info.offset_data + _padded(size)
        _check_end(self.file, position)

    def _next(self, start: int) -> tuple[int, tarfile.TarInfo | None]:
        """The member whose headers begin at a byte; None at the end, and where that is."""
        own: dict[str, str] = {}
        position, num_bytes = start, 0
        for _ in range(MAX_EXTENSIONS + 1):
            info = _read_header(self.file, position)
            if info is None and not own:
                return position, None
            if info is None:
                raise BrokenHeader(f"no member after the header at byte {start}")
            if info.size < 0:
                raise BrokenHeader(f"corrupt header at byte {position}: its size is negative")
            if info.type not in _EXTENSIONS:
                return position, self._complete(info, start, position, own)
            num_bytes += info.size
            if num_bytes > MAX_EXTENSION_BYTES:
                raise BrokenHeader(f"headers of more than {MAX_EXTENSION_BYTES} bytes at byte {start}")
            content = self.file.read(info.size)
            if len(content) < info.size:
                raise BrokenHeader(f"cut inside the header at byte {position}")
            self._extend(own, info, content, position)
            position += BLOCK + _padded(info.size)
        raise BrokenHeader(f"more than {MAX_EXTENSIONS} headers in a row at byte {start}")

    def _extend(self, own: dict[str, str], info: tarfile.TarInfo, content: bytes, position: int) -> None:
        """Takes in a header that says more of the members after it."""
        if info.type in _LONG_NAMES:
            own.setdefault(_LONG_NAMES[info.type], _text(content.partition(b"\0")[0]))
            return
        records = _read_records(content, position)
        if info.type in _PAX:
            own.update({name: value for name, value in records.items() if name not in own})
            return
        self._shared_bytes += info.size
        if self._shared_bytes > MAX_EXTENSION_BYTES:
            raise BrokenHeader(f"global headers of more than {MAX_EXTENSION_BYTES} bytes up to byte {position}")
        self.shared.update(records)

    def _complete(self, info: tarfile.TarInfo, start: int, position: int, own: dict[str, str]) -> tarfile.TarInfo:
        records = {**self.shared, **own}
        info.offset, info.offset_data, info.pax_headers = start, position + BLOCK, records
        info.name = records.get("path", info.name)
        info.linkname = records.get("linkpath", info.linkname)
        if info.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse.") for name in records):
            name = records.get("GNU.sparse.name", info.name)
            raise BrokenHeader(
                f"member {name!r} at byte {start} is stored as a sparse file, of which no offset can be given; "
                "pack the shard again without --sparse"
            )
        if "size" in records:
            if not _SIZE.fullmatch(records["size"]):
                raise BrokenHeader(f"corrupt header at byte {start}: its size is {records['size'][:40]!r}")
            info.size = int(records["size"])
        return info


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _read_header(file: BinaryIO, position: int) -> tarfile.TarInfo | None:
    """The header block at a byte; None for a block of zeros, which begins the end of the archive."""
    file.seek(position)
    block = file.read(BLOCK)
    if not block:
        raise BrokenHeader(f"ends at byte {file.seek(0, os.SEEK_END)} without end-of-archive blocks")
    if len(block) < BLOCK:
        raise BrokenHeader(f"cut header at byte {position}")
    if not any(block):
        return None
    if block[124] < 0x80 and not _OCTAL.match(block, 124, 136):  # tarfile takes 1_0 and 0o10 too
        raise BrokenHeader(f"corrupt header at byte {position}")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BrokenHeader(f"corrupt header at byte {position}") from error


def _read_records(content: bytes, position: int) -> dict[str, str]:
    """The records of a pax header: `length name=value` and a line feed each."""
    records: dict[str, str] = {}
    start = 0
    while start < len(content) and content[start]:  # some writers fill up with NUL
        match = _RECORD.match(content, start)
        stop = start + int(match[1]) if match else 0
        if match is None or not match.end() < stop <= len(content) or content[stop - 1] != ord("\n"):
            raise BrokenHeader(f"corrupt pax header at byte {position}")
        name, value = _text(match[2]), _text(content[match.end() : stop - 1])
        records[name] = value.rstrip("/") if name == "path" else value
        start = stop
    return records


def _refuse_no_tar(file: BinaryIO, url: str) -> None:
    """A damaged first header breaks a tar at its first byte; a file without any header is none."""
    file.seek(0)
    head = file.read(BLOCK)
    if _is_header(head) or (len(head) == BLOCK and not any(head)):
        return
    # Only now: a plain tar whose first member is called BZh... is fine.
    if tool := tool_of_content(head):
        raise compressed_error(url, tool)
    if head[257:262] == b"ustar":
        return
    rest = file.read(SEARCHED_BYTES)
    if not any(_is_header(rest[i : i + BLOCK]) for i in range(0, len(rest), BLOCK)):
        raise InputError(f"{url}: not a tar; check data.shards or fetch the file again")


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_end(file: BinaryIO, position: int) -> None:
    """Two blocks of zeros, then nothing else: a break between members must not pass for the end."""
    file.seek(position)
    end = file.read(2 * BLOCK)
    if len(end) < 2 * BLOCK and position > 0:
        raise BrokenHeader(f"cut inside its end-of-archive blocks at byte {position + len(end)}")
    while end:
        if end.count(0) < len(end):
            raise BrokenHeader(f"more data after the end-of-archive blocks at byte {position}")
        end = file.read(2**20)
