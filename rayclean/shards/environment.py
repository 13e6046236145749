"""Shards whose URLs are secrets: `env:NAME` stands for the patterns in an environment variable, one per line.

A signed URL is a key, and what the config says is written to the run folder, to logs and into errors. So from here on
such a shard is called `env://NAME/FILE`, by its base name alone. This file system finds what it stands for, in each
process anew, so the variable is set on every node; no error of what lies behind it is passed on with its text, which
may repeat the URL.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec

from rayclean.errors import ConfigError, InputError, RaycleanError
from rayclean.shards.urls import ENVIRONMENT, TAGS, expand_shards
from rayclean.storage.remote import is_transient

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)
_MEANT = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}


class EnvironmentFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Reads `env://NAME/FILE`."""

    protocol = "env"

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The files of a variable, in the order of its lines."""
        variable = self._strip_protocol(path).strip("/")
        paths = [f"{variable}/{file}" for file in _files_of(variable)]
        return [self.info(each) for each in paths] if detail else paths

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size, kind, and what tells versions apart."""
        with _unseen(path):
            fs, real = behind(self._strip_protocol(path))
            fs.invalidate_cache(real)
            facts = fs.info(real)
            kept = {name: facts[name] for name in ("size", "type", *TAGS) if name in facts}
        return {"size": None, "type": "file", **kept, "name": self._strip_protocol(path)}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Bytes [start, end) of a file."""
        with _unseen(path):
            fs, real = behind(self._strip_protocol(path))
            return bytes(fs.cat_file(real, start=start, end=end))

    def cat_ranges(self, paths: Sequence[str], starts: Any, ends: Any, **options: Any) -> list[bytes]:
        """Ranges of files, asked for at once where they lie in one store; the first error is raised."""
        if not paths:
            return []
        with _unseen(f"{paths[0]} and others" if len(set(paths)) > 1 else paths[0]):
            found = [behind(self._strip_protocol(path)) for path in paths]
            if len({id(fs) for fs, _ in found}) == 1:
                options = {"batch_size": options.get("batch_size"), "on_error": "raise"}
                return list(found[0][0].cat_ranges([real for _, real in found], starts, ends, **options))
            each = zip(found, starts, ends, strict=True)
            return [bytes(fs.cat_file(real, start=start, end=end)) for (fs, real), start, end in each]


def behind(path: str) -> tuple[Any, str]:
    """The file system and the path that `NAME/FILE` stands for."""
    variable, _, file = path.partition("/")
    files = _files_of(variable)
    if file not in files:
        raise ConfigError(
            f"{ENVIRONMENT}{variable} has no shard {file} on this node any more; set it as it was, or run again with "
            "what it holds now"
        )
    fs, real = fsspec.core.url_to_fs(files[file])
    return fs, str(real)


def _files_of(variable: str) -> Mapping[str, str]:
    """What each shard of a variable stands for, by its name.

    Raises:
        RaycleanError: there is no such variable, or one of its lines stands for no shards; none is repeated.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII):
        raise ConfigError(f"{ENVIRONMENT}{variable}: expected the name of an environment variable")
    if not os.environ.get(variable, "").strip():
        raise ConfigError(
            f"{ENVIRONMENT}{variable}: the environment has no {variable}, or nothing in it; set it to the shards' "
            "URLs, one per line, on every node"
        )
    return _expanded(variable, os.environ[variable])


@functools.lru_cache(maxsize=8)
def _expanded(variable: str, content: str) -> Mapping[str, str]:
    urls: dict[str, None] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{ENVIRONMENT}{variable}, line {number}"
        if line.strip().startswith(ENVIRONMENT):
            raise ConfigError(f"{where}: names a variable again; write the URLs themselves")
        try:
            urls |= dict.fromkeys(expand_shards(line.strip()))
        except RaycleanError as e:
            kind = "no pattern of shards" if isinstance(e, ConfigError) else "matches nothing that can be read"
            cause = f" ({type(e.__cause__).__name__})" if e.__cause__ else ""
            raise type(e)(f"{where}: {kind}{cause}; the line is not repeated here") from None
    # Of a URL no more than this: signatures come after it, and tokens in folders before it.
    names = [os.path.basename(re.split(r"[?#]", url, maxsplit=1)[0] if "://" in url else url) for url in urls]
    if len(set(names)) < len(names):
        names = [f"{position:05d}-{name}" for position, name in enumerate(names)]
    return dict(zip(names, urls, strict=True))


@contextmanager
def _unseen(path: str) -> Iterator[None]:
    """Errors without their text: what happened, to which shard, of the kind that decides whether a retry helps."""
    try:
        yield
    except RaycleanError:
        raise
    except Exception as e:
        status = getattr(e, "status", None)
        kind: type[Exception] = OSError if is_transient(e) else InputError
        kind = next((each for each in _FINAL if isinstance(e, each)), _MEANT.get(status or 0, kind))
        text = f"{type(e).__name__}{f' {status}' if status else ''} of what env://{path} stands for"
        raise kind(text) from None
