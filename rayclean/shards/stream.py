"""Streaming a whole shard from its start to its end, for training: a WebDataset pipeline with a reader of its own.

WebDataset's reader holds every member whole, also those that nobody asked for, believes what a header claims, and its
grouping fails on a repeated member. Ours is the catalog's, so that both see the same samples in whatever shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rayclean.shards.opening import open_shard, read_content
from rayclean.shards.tar import Member, TruncatedTar, group_members, scan_members

StreamedSample = tuple[int, str, dict[str, bytes]]


class _Part(NamedTuple):
    member: Member
    content: bytes | None


def stream_shard(url: str, wanted: Callable[[Member], bool] | None) -> Iterator[StreamedSample]:
    """Streams the samples of a shard from its start to its end, or to where it breaks off.

    Args:
        url: local path or fsspec URL.
        wanted: whether a member is to be read, None for all. The others are passed over without reading them, and
            count for the grouping.

    Yields:
        Position among the samples of the shard (the catalog's `sample`), key, content by extension. The last
        one before a break may be partial: the catalog has put it aside.

    Raises:
        InputError: the shard is missing or cannot be read.
        ShardChangedError: it became shorter while it was read.
    """
    import webdataset  # not needed to score arrays in memory

    yield from webdataset.DataPipeline(lambda: _parts(url, wanted), _samples)


def _parts(url: str, wanted: Callable[[Member], bool] | None) -> Iterator[_Part]:
    with open_shard(url) as file:
        try:
            for member in scan_members(file, url):
                is_wanted = not member.link and (wanted is None or wanted(member))
                yield _Part(member, read_content(file, member.offset, member.size, url) if is_wanted else None)
        except TruncatedTar:
            return


def _samples(parts: Iterable[_Part]) -> Iterator[StreamedSample]:
    groups = group_members(parts, lambda part: (part.member.key, part.member.extension))
    for ordinal, sample in enumerate(groups):
        kept = {part.member.extension: part.content for part in sample if part.content is not None}
        yield ordinal, sample[0].member.key, kept
