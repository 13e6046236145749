"""Compressed tars have no random access: they are refused with the command that unpacks them."""

from __future__ import annotations

import shlex

from rayclean.errors import InputError

_TOOL_OF_SUFFIX = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".bz2": "bzip2",
    ".tbz2": "bzip2",
    ".xz": "xz",
    ".txz": "xz",
    ".zst": "zstd",
    ".tzst": "zstd",
}
_TOOL_OF_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def tool_of_name(url: str) -> str | None:
    """The program that unpacks a file of this name, None where the name does not call for one."""
    return next((tool for suffix, tool in _TOOL_OF_SUFFIX.items() if url.lower().endswith(suffix)), None)


def tool_of_content(head: bytes) -> str | None:
    """The program that unpacks a file with these first bytes (6 are enough), None where none is known."""
    return next((tool for magic, tool in _TOOL_OF_MAGIC.items() if head.startswith(magic)), None)


def compressed_error(url: str, tool: str) -> InputError:
    """The error for a compressed shard, with the command that unpacks it."""
    source = url.rpartition("/")[2] if "://" in url else url
    command = f"{tool} -dc {shlex.quote(source)} > {shlex.quote(_unpacked_name(source))}"
    place = " on a local copy and put the result beside it" if "://" in url else ""
    return InputError(
        f"{url}: compressed with {tool}, expected a plain tar (images are read by their offset); run "
        f"`{command}`{place}, then name the unpacked file in data.shards"
    )


def _unpacked_name(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    suffix = dot + last.lower()
    if suffix not in _TOOL_OF_SUFFIX:
        return f"{name.removesuffix('.tar')}.unpacked.tar"
    return f"{stem.removesuffix('.tar')}.tar"
