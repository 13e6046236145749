"""Members of a tar with their offsets, and the one rule by which members are samples.

WebDataset streams with these rules too (`stream.py`), so that the n-th sample is the same one for everybody.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

from rayclean.errors import InputError
from rayclean.shards.compression import compressed_error, tool_of_content

T = TypeVar("T")

# What `tarfile` raises for headers that make no sense.
TAR_ERRORS = (tarfile.TarError, ValueError, OverflowError)
_NAME = re.compile(r"((?:.*/)?[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")


class Member(NamedTuple):
    """One file in a tar; `offset` and `size` (bytes) say where its content lies."""

    name: str
    key: str
    extension: str
    offset: int
    size: int


class TruncatedTar(Exception):
    """A tar breaks off; raised after the whole members before the break were given.

    Attributes:
        reason: what is broken, and at which byte.
        member: the one that is cut, where its header is whole and names a sample.
    """

    def __init__(self, reason: str, member: Member | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.member = member


def split_name(name: str) -> tuple[str, str] | None:
    r"""Key and extension of a member by WebDataset's rule.

    Args:
        name: path in the tar. Bytes that are no UTF-8 become `\xff` and the like, so that any key fits
            a table.

    Returns:
        The path up to the first dot of the base name, and the lower-cased rest. None for what WebDataset
        skips: names without a dot, and all whose first part starts and ends with `__`.
    """
    name = _as_utf8(name)
    match = None if _META.match(name) else _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def _as_utf8(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def group_members(items: Iterable[T], name_of: Callable[[T], tuple[str, str]]) -> Iterator[list[T]]:
    """Groups members to samples: the rule that catalog and training share.

    Consecutive members of one key are a sample; an extension that the sample already has starts a new one.

    Args:
        items: members in the order of the tar.
        name_of: key and extension of an item.

    Yields:
        The members of each sample, at least one.
    """
    sample: list[T] = []
    key, extensions = "", set[str]()
    for item in items:
        item_key, extension = name_of(item)
        if sample and (item_key != key or extension in extensions):
            yield sample
            sample, extensions = [], set()
        key = item_key
        sample.append(item)
        extensions.add(extension)
    if sample:
        yield sample


def scan_members(file: BinaryIO, url: str) -> Iterator[Member]:
    """Members that may belong to samples, in order (ustar, GNU and pax headers).

    Args:
        file: seekable; between two members the caller may read elsewhere.
        url: of the shard, for errors.

    Yields:
        Whole regular files whose names `split_name` accepts.

    Raises:
        TruncatedTar: after the last whole member, where the tar is cut or a header is corrupt.
        InputError: not a tar, compressed, or with sparse members, which have no one offset.
    """
    end = file.seek(0, os.SEEK_END)
    tar = _open_tar(file, url)
    while (info := _next_header(tar)) is not None:
        name = split_name(info.name) if info.isreg() else None
        if name is None:
            continue
        if info.issparse():
            raise InputError(f"{url}: member {info.name!r} is stored as a sparse file; pack it again without --sparse")
        member = Member(_as_utf8(info.name), *name, info.offset_data, info.size)
        if member.offset + member.size > end:
            raise TruncatedTar(f"cut at byte {end} inside member {member.name!r}", member)
        yield member
    _check_end(file, tar.offset)


def _open_tar(file: BinaryIO, url: str) -> tarfile.TarFile:
    file.seek(0)
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except TAR_ERRORS as error:
        file.seek(0)
        # Only now: a plain tar whose first member is called BZh... is fine.
        if tool := tool_of_content(file.read(6)):
            raise compressed_error(url, tool) from error
        raise InputError(f"{url}: not a tar ({error}); check data.shards or fetch the file again") from error


def _next_header(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    start = tar.offset
    try:
        info = tar.next()
    except TAR_ERRORS as error:
        raise TruncatedTar(f"{error} before or at byte {start}") from error
    tar.members = []  # type: ignore[attr-defined]  # else it keeps every header of the shard
    # A negative size would send the reader back, for ever.
    if info is not None and (info.size < 0 or tar.offset < info.offset_data):
        raise TruncatedTar(f"corrupt header at byte {info.offset}")
    return info


def _check_end(file: BinaryIO, offset: int) -> None:
    """Two blocks of zeros, then nothing else: `tarfile` takes any break between members for the end."""
    block = tarfile.BLOCKSIZE
    file.seek(offset)
    end = file.read(2 * block)
    if not end:
        raise TruncatedTar(f"ends at byte {offset} without end-of-archive blocks")
    if any(end[:block]):
        raise TruncatedTar(f"{'corrupt' if len(end) >= block else 'cut'} header at byte {offset}")
    if len(end) < 2 * block and offset > 0:
        raise TruncatedTar(f"cut inside its end-of-archive blocks at byte {offset + len(end)}")
    while end:
        if end.strip(b"\0"):
            raise TruncatedTar(f"more data after the end-of-archive blocks at byte {offset}")
        end = file.read(2**20)
