"""Which shards a config names, and what each one is at this moment."""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rayclean.errors import ConfigError, InputError
from rayclean.shards.compression import compressed_error, tool_of_name
from rayclean.storage.remote import PATIENCE_S, START_PATIENCE_S, tried_for

# One of these tells two versions of an object apart; stores name it differently. Best first.
TAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
SHARDS = "data.shards"
ENVIRONMENT = "env:"  # of patterns that are in an environment variable
# One request lists 1,000 objects; fewer shards than this in a folder are asked for one by one.
_LISTED = 100
_ASKED_AT_ONCE = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardIdentity:
    """What a shard was when somebody looked.

    Attributes:
        url: absolute local path or fsspec URL.
        size: bytes.
        tag: etag, or time of the last change (local: mtime in ns); empty where the store tells neither.
    """

    url: str
    size: int
    tag: str


@functools.cache
def library() -> Any:
    """fsspec, which knows our own kind of URL; it is not needed to score arrays in memory."""
    import fsspec

    fsspec.register_implementation("env", "rayclean.shards.environment.EnvironmentFiles")
    return fsspec


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    fs, path = library().core.url_to_fs(url)
    return fs, path


def local_path(url: str) -> str | None:
    """The path of a local shard, None for one that fsspec must fetch."""
    if url.startswith(("file://", "local://")):
        return url.partition("://")[2]
    return None if "://" in url else url


def expand_shards(patterns: str | Sequence[str], field: str = SHARDS) -> list[str]:
    """The shards that patterns stand for.

    Args:
        patterns: local globs, brace ranges (`{0000..0099}`), fsspec URLs (also with globs), `env:NAME` for those in an
            environment variable (`rayclean.shards.environment`), or a list.
        field: of the config, for errors.

    Returns:
        Sorted and unique; local ones as absolute paths. Without a glob a remote shard is not looked up here. One
        that is reached twice, by two patterns or a link, is there once, and a line says so.

    Raises:
        ConfigError: an empty or unbalanced pattern, or `pipe:`, which would run a shell.
        InputError: no match for a pattern, a store that does not answer, or a compressed tar.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    if not given:
        raise ConfigError(f"{field} is an empty list; name at least one shard")
    found = sorted(url for pattern in given for url in _expand_pattern(pattern, field))
    by_place: dict[str, list[str]] = {}
    for url in found:
        by_place.setdefault(_place(url), []).append(url)
    if twice := [names for names in by_place.values() if len(names) > 1]:
        log.warning(
            "%s: shards that are reached twice and read once: %d, such as %s", field, len(twice), " = ".join(twice[0])
        )
    urls = [names[0] for names in by_place.values()]
    for url in urls:
        if tool := tool_of_name(url):
            raise compressed_error(url, tool)
    return urls


def _place(url: str) -> str:
    """What two names of one shard share: where links lead."""
    path = local_path(url)
    return url if path is None else os.path.realpath(path)


def _expand_pattern(pattern: str, field: str) -> list[str]:
    if not pattern.strip():
        raise ConfigError(f"{field} has an empty pattern; remove it or name a shard")
    if pattern.strip().startswith(ENVIRONMENT):
        variable = pattern.strip().removeprefix(ENVIRONMENT)
        return [f"env://{path}" for path in library().filesystem("env").ls(variable, detail=False)]
    _refuse_pipe(pattern, field)
    if os.path.isfile(pattern):  # a name that itself has braces or brackets
        return [os.path.abspath(pattern)]
    import braceexpand

    try:
        parts = list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(f"{field}: {pattern}: unbalanced braces; write for instance {{0000..0099}}") from error
    return [url for part in parts for url in _match(part, pattern, field)]


def _refuse_pipe(pattern: str, field: str) -> None:
    if pattern.strip().lower().startswith("pipe:"):
        raise ConfigError(
            f"{field}: {pattern}: pipe: runs a shell command and is refused; "
            "name files or fsspec URLs (s3://, gs://, https://)"
        )


def _match(part: str, pattern: str, field: str) -> list[str]:
    _refuse_pipe(part, field)
    path = local_path(part)
    found = _match_remote(part) if path is None else _match_local(path, field)
    if not found:
        which = pattern if part == pattern else f"{pattern} ({part})"
        raise InputError(f"{field}: {which}: no file matches; check the path")
    return found


def _match_local(path: str, field: str) -> list[str]:
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        raise InputError(f"{field}: {path}: found a folder, expected files; write {path}/*.tar")
    if os.path.exists(path):
        return [path]
    return [match for match in glob.glob(_literal(path), recursive=True) if os.path.isfile(match)]


def _literal(pattern: str) -> str:
    """A pattern whose folders, as far as there are such, are taken by the letter: brackets may be part of a name."""
    folder = os.path.dirname(pattern)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return glob.escape(folder) + pattern[len(folder) :]


def _match_remote(url: str) -> list[str]:
    try:
        fs, path = file_system(url)
        # In an http URL the question mark starts the query.
        if not re.search(r"[*\[]" if url.startswith("http") else r"[*?\[]", path):
            return [url]
        found: Mapping[str, Any] = tried_for(START_PATIENCE_S, fs.glob, path, detail=True)
        names = [name for name, info in found.items() if info["type"] == "file"]
        if url.endswith(path):  # keeps the URL as it was written, chained protocols too
            return [url.removesuffix(path) + name for name in names]
        return [fs.unstrip_protocol(name) for name in names]
    except Exception as error:  # each store has its own exceptions, few of them OSError
        raise unreadable(url, error) from error


def short_names(urls: Sequence[str]) -> list[str]:
    """Paths of shards below the longest folder common to all, at least the base name.

    Args:
        urls: as `expand_shards` gives them.

    Returns:
        One name per shard, in the same order; different as long as the URLs are.
    """
    parts = [url.split("/") for url in urls]
    shortest = min((len(part) for part in parts), default=1)
    common = 0
    while common < shortest - 1 and len({part[common] for part in parts}) == 1:
        common += 1
    return ["/".join(part[common:]) for part in parts]


def identify_shards(urls: Sequence[str]) -> list[ShardIdentity]:
    """What each of many shards is now, in the same order; those of one large folder are listed in one go.

    Raises:
        InputError: as `identify_shard`.
    """
    folders: dict[str, list[str]] = {}
    for url in urls:
        # A web server's listing is a page of links, and a variable's files may lie anywhere.
        if local_path(url) is None and not url.startswith(("http", ENVIRONMENT)):
            folders.setdefault(url.rpartition("/")[0], []).append(url)
    listed: dict[str, ShardIdentity] = {}
    for folder, inside in folders.items():
        if len(inside) >= _LISTED:
            listed |= _list_folder(folder)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        return list(threads.map(lambda url: listed.get(url) or identify_shard(url), urls))


def _list_folder(folder: str) -> dict[str, ShardIdentity]:
    """The files of a folder on an object store, by URL."""
    try:
        fs, path = file_system(folder)
        entries: list[Mapping[str, Any]] = tried_for(START_PATIENCE_S, fs.ls, path, detail=True, refresh=True)
    except Exception as error:  # see _match_remote
        raise unreadable(folder, error) from error
    files = (entry for entry in entries if entry["type"] == "file")
    named = ((f"{folder}/{entry['name'].rstrip('/').rpartition('/')[2]}", entry) for entry in files)
    return {url: _identity(url, entry) for url, entry in named}


def identify_shard(url: str) -> ShardIdentity:
    """What a shard is now.

    Raises:
        InputError: missing, no access, or not a file; with the cause.
    """
    try:
        return stat_shard(url, START_PATIENCE_S)
    except Exception as error:  # see _match_remote
        raise unreadable(url, error) from error


def stat_shard(url: str, patience_s: float = PATIENCE_S) -> ShardIdentity:
    """As `identify_shard`, with the file system's own exceptions, which say whether a retry may help."""
    path = local_path(url)
    if path is None:
        return tried_for(patience_s, _stat_remote, url)
    with open(path, "rb", opener=_open_without_waiting) as file:  # finds missing rights, which stat does not
        facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("not a regular file")
    return ShardIdentity(url, facts.st_size, str(facts.st_mtime_ns))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for a writer for ever


def _stat_remote(url: str) -> ShardIdentity:
    fs, path = file_system(url)
    fs.invalidate_cache(path)  # a listing of an hour ago would hide a change
    facts: Mapping[str, Any] = fs.info(path)
    if facts.get("type", "file") != "file" or facts.get("size") is None:
        raise OSError(f"expected a file of known size, found {facts.get('type')} of size {facts.get('size')}")
    return _identity(url, facts)


def _identity(url: str, facts: Mapping[str, Any]) -> ShardIdentity:
    tag = next((facts[name] for name in TAGS if facts.get(name)), "")
    return ShardIdentity(url, int(facts["size"]), str(tag).strip('"'))


def unreadable(url: str, error: Exception) -> InputError:
    """The error for a shard that cannot be read, with its cause."""
    cause = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return InputError(f"{url}: cannot be read: {cause}; check the path and the access rights")
