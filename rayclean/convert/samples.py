"""What a layout gives and what is asked of a conversion: samples that are still to be read, by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rayclean.errors import ConfigError
from rayclean.shards.write import Sample

Facts = Mapping[str, Any]
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")  # the default of `data.image`


class Item(Protocol):
    """A sample that is still to be read, by another process."""

    @property
    def key(self) -> str:
        """Unique in its split."""

    def identity(self) -> str:
        """What the sample's bytes depend on, as far as it is known without reading them; of one line."""

    def sample(self) -> Sample:
        """Reads it."""


@dataclass(frozen=True)
class Split:
    """The samples of SPLIT-000000.tar and so on.

    Attributes:
        name: SPLIT.
        items: in any order.
        num_bytes: of all images, about.
        missing: names of samples that are listed but not there.
        notes: what else its user should know.
    """

    name: str
    items: Sequence[Item]
    num_bytes: int
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """Where a data set lies, and where its shards go.

    Attributes:
        root: a folder or file, or what else the layout takes for one.
        out: local folder or fsspec URL.
    """

    root: str
    out: str


@dataclass(frozen=True)
class Found:
    """What a layout has found.

    Attributes:
        splits: of different names.
        classes: names by label.
        scratch: a local folder that reading the samples fills, removed once all shards are there; empty for none.
    """

    splits: Sequence[Split]
    classes: Sequence[str]
    scratch: str = ""


@dataclass(frozen=True)
class Options:
    """What every conversion may be told.

    Attributes:
        seed: of the order of the samples.
        shard_size: most samples per shard; None: at most 5,000, and about 256 MiB.
        workers: processes, each of which holds a shard in memory.
        max_missing: most listed images of a split that may be missing.

    Raises:
        ConfigError: a number out of range.
    """

    seed: int = 0
    shard_size: int | None = None
    workers: int = 1
    max_missing: int = 0

    def __post_init__(self) -> None:
        for name, count in (("--shard-size", self.shard_size), ("--workers", self.workers)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} {count}: expected a whole number from 1 on")
        if self.max_missing < 0:
            raise ConfigError(f"--max-missing {self.max_missing}: expected a number of images, at least 0")


def printable(text: str) -> str:
    """The text as it can be shown: names of files may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()
