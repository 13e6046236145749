"""One shard to another with some of its samples: their members byte for byte, but for labels that change."""

from __future__ import annotations

import copy
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from rayclean.errors import InputError, ShardChangedError
from rayclean.shards.headers import BrokenHeader, TarHeaders
from rayclean.shards.tar import Member, group_members, members_of

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
    member: Member


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

    What belongs to no sample (folders, names without a dot) is left out, and so are links that lead nowhere; a hard
    link becomes the file that it names. The copy is held in memory.

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
    for position, sample in enumerate(samples_of(file, url)):
        if copied.samples == len(wanted):
            break
        if position not in wanted:
            continue
        key, change = wanted[position]
        if sample[0].member.key != key:
            raise _changed(url, f"sample {position} is {sample[0].member.key!r}", repr(key))
        for part in sample:
            changes = change if part.member.extension == extension else None
            copied.data += b"" if part.member.link else _whole(file, url, part, changes)
        copied.samples += 1
        copied.changed += change is not None
    if copied.samples < len(wanted):
        raise _changed(url, f"{copied.samples} of the samples", f"{len(wanted)}")
    if copied.data:
        copied.data += bytes(2 * tarfile.BLOCKSIZE)
        copied.data += bytes(-len(copied.data) % tarfile.RECORDSIZE)
    return copied


def samples_of(file: BinaryIO, url: str) -> Iterator[list[Part]]:
    """The samples of a shard, as the catalog counts them; up to where the tar breaks off.

    Of a broken tar the catalog has put the last sample aside, so that no wanted one is lost.
    """
    return group_members(_parts_of(file, url), lambda part: (part.member.key, part.member.extension))


def _parts_of(file: BinaryIO, url: str) -> Iterator[Part]:
    headers = TarHeaders(file, url)
    try:
        for info, member in members_of(headers, Counter()):
            if set(headers.shared) - {"comment"}:
                raise InputError(
                    f"{url}: its global pax header ({', '.join(headers.shared)}) applies to all members, which a copy "
                    "of some of them would lose; pack the shard again without it"
                )
            yield Part(info, member)
    except BrokenHeader:
        return


def _whole(file: BinaryIO, url: str, part: Part, change: Change | None) -> bytes:
    """A member's headers, content and padding."""
    info = part.info
    padding = -info.size % tarfile.BLOCKSIZE
    if change is None and info.isreg():
        size = info.offset_data + info.size - info.offset
        return _read(file, url, info.offset, size) + bytes(padding)
    content = read_part(file, url, part)
    content = content if change is None else change(content)
    header = copy.copy(info)
    header.type, header.linkname, header.size = tarfile.REGTYPE, "", len(content)
    header.pax_headers = {name: value for name, value in info.pax_headers.items() if name != "size"}
    return header.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def read_part(file: BinaryIO, url: str, part: Part) -> bytes:
    """The content of a member."""
    return _read(file, url, part.member.offset, part.member.size)


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
