"""Whether web servers give parts of files, which is how everything after the first look at a shard is read.

A server that gives the whole file instead would be noticed late: the catalog reads a shard from its start to its end,
and the first picture that is asked for by its place is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from rayclean.errors import InputError
from rayclean.shards.urls import ENVIRONMENT, file_system

ANSWER_S = 30
_PARTIAL, _EMPTY = 206, 416  # of a file without a byte no byte can be given


def check_ranges(urls: Sequence[str]) -> None:
    """Asks each web server for one byte of one shard; reads no more of the answer than its head.

    Args:
        urls: of shards that are there.

    Raises:
        InputError: a server gives the whole file.
    """
    asked = set[str]()
    for url in urls:
        if not url.startswith(("http://", "https://", ENVIRONMENT)):
            continue
        fs, path = file_system(url)
        if url.startswith(ENVIRONMENT):
            from rayclean.shards.environment import behind  # loads fsspec, which scoring arrays in memory does without

            fs, path = behind(path)
        host = urlsplit(path).netloc
        if host in asked or "http" not in fs.protocol:
            continue
        asked.add(host)
        if not _gives_parts(fs, path):
            raise InputError(
                f"{url}: its server gives whole files alone (it does not answer Range requests), but images are read "
                "by their places; copy the shards to a disk or an object store, or have each process keep copies "
                "(simplecache::https://...)"
            )


def _gives_parts(fs: Any, path: str) -> bool:
    """Whether the answer is one byte; True where there is no answer, which is not what is asked here."""
    from fsspec.asyn import sync

    async def status() -> int:
        session = await fs.set_session()
        async with session.get(fs.encode_url(path), headers={"Range": "bytes=0-0"}) as answer:
            return int(answer.status)

    try:
        found = sync(fs.loop, status, timeout=ANSWER_S)
    except Exception:  # the client's, which is no dependency of ours; the first read says what is wrong
        return True
    return found in (_PARTIAL, _EMPTY) or not 200 <= found < 300
