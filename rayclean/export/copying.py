"""One shard to another with some of its samples: their members byte for byte, but for labels that change."""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from rayclean.errors import InputError, ShardChangedError
from rayclean.shards.headers import BrokenHeader, TarHeaders
from rayclean.shards.tar import group_members, split_name

Change = Callable[[bytes], bytes]


class Wanted(NamedTuple):
    """A sample to copy.

    Attributes:
        key: that it must have.
        change: makes the new content of its label member from the old one; None where the label stays.
    """

    key: str
    change: Change | None


class Part(NamedTuple):
    """A member that may belong to a sample."""

    info: tarfile.TarInfo
    key: str
    extension: str


@dataclass
class Copied:
    """A new shard.

    Attributes:
        data: the tar; empty where no sample was copied.
        samples: how many were.
        changed: how many of them have another label.
    """

    data: bytearray = field(default_factory=bytearray)
    samples: int = 0
    changed: int = 0


def copy_samples(file: BinaryIO, url: str, wanted: Mapping[int, Wanted], extension: str) -> Copied:
    """Copies samples in their order; a member's headers too, but where its content changes.

    What lies between samples (folders, links, names without a dot) is left out. The copy is held in memory.

    Args:
        file: the shard, seekable.
        url: of it, for errors.
        wanted: by position among all samples of the shard.
        extension: of the member that a change is for.

    Raises:
        ShardChangedError: a wanted sample is not there, or has another key.
        InputError: the tar has headers that apply to all members, which a copy of some members would lose.
    """
    copied = Copied()
    samples = group_members(parts_of(file, url), lambda part: (part.key, part.extension))
    for position, sample in enumerate(samples):
        if copied.samples == len(wanted):
            break
        if position not in wanted:
            continue
        key, change = wanted[position]
        if sample[0].key != key:
            raise _changed(url, f"sample {position} is {sample[0].key!r}", repr(key))
        for part in sample:
            changes = change if part.extension == extension else None
            copied.data += _whole(file, url, part.info, changes)
        copied.samples += 1
        copied.changed += change is not None
    if copied.samples < len(wanted):
        raise _changed(url, f"{copied.samples} of the samples", f"{len(wanted)}")
    if copied.data:
        copied.data += bytes(2 * tarfile.BLOCKSIZE)
        copied.data += bytes(-len(copied.data) % tarfile.RECORDSIZE)
    return copied


def parts_of(file: BinaryIO, url: str) -> Iterator[Part]:
    """Members that may belong to samples, as the catalog takes them; up to where the tar breaks off.

    Of a broken tar the catalog has put the last sample aside, so that no wanted one is lost.
    """
    headers = TarHeaders(file, url)
    try:
        for info in headers:
            if set(headers.shared) - {"comment"}:
                raise InputError(
                    f"{url}: its global pax header ({', '.join(headers.shared)}) applies to all members, which a copy "
                    "of some of them would lose; pack the shard again without it"
                )
            name = split_name(info.name) if info.isreg() else None
            if name is not None:
                yield Part(info, *name)
    except BrokenHeader:
        return


def _whole(file: BinaryIO, url: str, info: tarfile.TarInfo, change: Change | None) -> bytes:
    """A member's headers, content and padding."""
    padding = -info.size % tarfile.BLOCKSIZE
    if change is None:
        size = info.offset_data + info.size - info.offset
        return _read(file, url, info.offset, size) + bytes(padding)
    content = change(_read(file, url, info.offset_data, info.size))
    header = copy.copy(info)
    header.size = len(content)
    header.pax_headers = {name: value for name, value in info.pax_headers.items() if name != "size"}
    return header.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def read_part(file: BinaryIO, url: str, part: Part) -> bytes:
    """The content of a member."""
    return _read(file, url, part.info.offset_data, part.info.size)


def _read(file: BinaryIO, url: str, start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise _changed(url, f"{len(data)} bytes at byte {start}", f"{size}")
    return data


def _changed(url: str, found: str, expected: str) -> ShardChangedError:
    return ShardChangedError(
        f"{url} changed since it was cataloged: found {found}, expected {expected}; "
        "run again to catalog the new content"
    )
