"""Writing shards: the same samples give the same bytes, and a shard is there whole or not at all."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from itertools import islice

from rayclean.errors import InputError
from rayclean.shards.tar import split_name
from rayclean.storage.store import Store

Sample = tuple[str, Mapping[str, bytes]]


def write_shard(path: str, samples: Iterable[Sample]) -> None:
    """Writes a tar; it is held in memory until it appears at `path` in one step.

    Args:
        path: local path or fsspec URL.
        samples: key and content by extension. Keys keep their order, members are sorted by extension.

    Raises:
        InputError: a key or extension that would be read back as another one, or a key twice in a row.
    """
    buffer = io.BytesIO()
    # A pax header only where a name is long or not ASCII; the rest is plain ustar.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        previous = None
        for key, members in samples:
            if key == previous:
                raise InputError(f"{path}: key {key!r} twice in a row would be one sample; make keys unique")
            previous = key
            for extension in sorted(members):
                _add(tar, path, key, extension, members[extension])
    folder, name = os.path.split(path)
    Store(folder or ".").publish(name, buffer.getvalue())


def _add(tar: tarfile.TarFile, path: str, key: str, extension: str, content: bytes) -> None:
    name = f"{key}.{extension}"
    if split_name(name) != (key, extension) or "\0" in name:
        raise InputError(
            f"{path}: key {key!r} with extension {extension!r} would be read back as {split_name(name)}; "
            "a key has no dot after its last slash, an extension is lower case without slashes, neither has NUL"
        )
    info = tarfile.TarInfo(name)  # mtime 0, owner 0, mode 0644
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_shards(folder: str, prefix: str, samples: Iterable[Sample], samples_per_shard: int) -> list[str]:
    """Writes `<folder>/<prefix>-000000.tar` and so on, one after the other.

    Args:
        folder: local folder, made where missing, or fsspec URL.
        prefix: of the file names.
        samples: see `write_shard`; consumed shard by shard.
        samples_per_shard: of all shards but the last.

    Returns:
        The paths; none where there are no samples.
    """
    rest = iter(samples)
    paths: list[str] = []
    while part := list(islice(rest, samples_per_shard)):
        paths.append(f"{folder.rstrip('/')}/{prefix}-{len(paths):06d}.tar")
        write_shard(paths[-1], part)
    return paths
