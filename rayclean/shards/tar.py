"""Members of a tar with their offsets, and the one rule by which members are samples.

Training streams with these rules too (`stream.py`), so that the n-th sample is the same one for everybody.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

from rayclean.shards.headers import BrokenHeader, TarHeaders

T = TypeVar("T")
MAX_KIND = 20  # characters

_NAME = re.compile(r"((?:.*/)?[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
# What file managers leave in every folder, and macOS' tar before every file.
_NOBODYS = re.compile(r"(?is)(.*/)?([.]_[^/]*|[.]DS_Store|Thumbs[.]db|desktop[.]ini|__MACOSX(/.*)?)")


class Member(NamedTuple):
    """One file in a tar; `offset` and `size` (bytes) say where its content lies.

    `link`: what a link names whose content is not in the tar before it; empty for a file, and for a hard link to one.
    """

    name: str
    key: str
    extension: str
    offset: int
    size: int
    link: str = ""


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
        skips: names without a dot, and all whose first part starts and ends with `__`; and for files that belong to
        no sample (`._*`, `.DS_Store`, `Thumbs.db`, what lies in `__MACOSX`).
    """
    name = _as_utf8(name)
    match = None if _META.match(name) or _NOBODYS.fullmatch(name) else _NAME.fullmatch(name)
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


def scan_members(file: BinaryIO, url: str, strays: Counter[str] | None = None) -> Iterator[Member]:
    """Members that may belong to samples, in order.

    Args:
        file: seekable; between two members the caller may read elsewhere.
        url: of the shard, for errors.
        strays: counts files that belong to none, by kind.

    Yields:
        Whole regular files and links whose names `split_name` accepts.

    Raises:
        TruncatedTar: after the last whole member, where the tar is cut, a header is corrupt or a member is sparse.
        InputError: not a tar, or compressed.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        for _, member in members_of(TarHeaders(file, url), Counter() if strays is None else strays):
            if member.offset + member.size > end:
                raise TruncatedTar(f"cut at byte {end} inside member {member.name!r}", member)
            yield member
    except BrokenHeader as broken:
        raise TruncatedTar(str(broken)) from broken


def members_of(headers: Iterable[tarfile.TarInfo], strays: Counter[str]) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    """Members that may belong to samples, with their headers.

    A hard link has the content of the file before it that it names; 30 bytes per file are held to find it.

    Args:
        headers: of a tar.
        strays: counts files that belong to no sample, by kind.
    """
    places: dict[str, tuple[int, int]] = {}
    for info in headers:
        if info.isreg():
            places[info.name] = info.offset_data, info.size
        elif not (info.islnk() or info.issym()):
            continue
        name = split_name(info.name)
        if name is None:
            strays[kind_of(info.name)] += 1
            continue
        place = places.get(info.name if info.isreg() else info.linkname if info.islnk() else "")
        link = "" if place else _as_utf8(info.linkname) or "nothing"
        yield info, Member(_as_utf8(info.name), *name, *(place or (info.offset_data, 0)), link)


def kind_of(name: str) -> str:
    """What a file is called by that belongs to no sample: its last extension, or what its name begins with."""
    base = _as_utf8(name).rstrip("/").rpartition("/")[2].lower()
    if base.startswith("._") or base in (".ds_store", "thumbs.db", "desktop.ini"):
        return "._*" if base.startswith("._") else base
    return f".{base.rpartition('.')[2]}"[:MAX_KIND] if "." in base else "no extension"
