"""Streaming a whole shard by WebDataset, for training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import webdataset

from rayclean.shards.opening import open_shard
from rayclean.shards.tar import TAR_ERRORS, group_members, split_name

StreamedSample = tuple[int, str, dict[str, bytes]]


def stream_shard(url: str, extensions: Collection[str] | None) -> Iterator[StreamedSample]:
    """Streams the samples of a shard from its start to its end, or to where it breaks off.

    WebDataset reads the tar; its own grouping is not used, since that one fails on a repeated member.

    Args:
        url: local path or fsspec URL.
        extensions: members to keep, None for all. The others count for the grouping.

    Yields:
        Position among the samples of the shard (the catalog's `sample`), key, content by extension. The last
        one before a break may be partial: the catalog has put it aside.

    Raises:
        InputError: the shard is missing or cannot be read.
    """
    with open_shard(url) as stream:
        yield from webdataset.DataPipeline(
            lambda: iter([{"url": url, "stream": stream}]),
            lambda sources: webdataset.tariterators.tar_file_expander(sources, handler=_stop_at_break),
            lambda files: _samples(files, extensions),
        )


def _stop_at_break(error: Exception) -> bool:
    """A broken tar ends the shard; a failed read is raised, so that it is not taken for the end."""
    if isinstance(error, TAR_ERRORS):
        return False
    raise error


def _samples(files: Iterable[dict[str, Any]], extensions: Collection[str] | None) -> Iterator[StreamedSample]:
    # WebDataset marks the end of a tar by an empty dict.
    named = ((name, file["data"]) for file in files if file and (name := split_name(file["fname"])))
    for ordinal, sample in enumerate(group_members(named, lambda item: item[0])):
        kept = {name[1]: data for name, data in sample if extensions is None or name[1] in extensions}
        yield ordinal, sample[0][0][0], kept
