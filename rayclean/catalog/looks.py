"""What a scan makes of each sample beside its label: a digest of what it shows, and with features these, once.

Features lie in one file per shard, apart from the catalogs: one that is there is not made again, whatever else of a run
changes, so an image is decoded and goes through a frozen network once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from rayclean.schema import NO_ROW, Array
from rayclean.shards.decode import BadSample, decode_image
from rayclean.shards.urls import ShardIdentity, local_path
from rayclean.storage.contents import map_arrays, read_json, write
from rayclean.storage.draws import pixel_digest
from rayclean.storage.fingerprint import digest
from rayclean.storage.store import Store

VERSION = 1
LARGEST_EXPONENT = 15  # a file's largest entry is below 2^15 as it is stored; float16 ends at 2^16


class Seen(NamedTuple):
    """What a look makes of a sample.

    Attributes:
        digest: 16 bytes; equal for samples that show the same.
        feature: where its features lie in the shard's file, `NO_ROW` without features.
    """

    digest: bytes
    feature: int = NO_ROW


class Look(Protocol):
    """Looks at the samples of one shard, in order."""

    @property
    def members(self) -> frozenset[str]:
        """Extensions that it reads; of images, whether they are read at all."""

    @property
    def shows(self) -> frozenset[str]:
        """Extensions that may show what a sample is, whether they need be read or not; none where files apart do."""

    def see(self, sample: int, key: str, contents: Mapping[str, bytes]) -> Seen:
        """Looks at a sample.

        Args:
            sample: its position in the shard.
            key: its name.
            contents: of the members that are read, by extension.

        Raises:
            BadSample: it cannot be a row.
        """

    def finish(self) -> Mapping[int, Seen | BadSample]:
        """What has become of samples that were seen, where more is known of them at the end of the shard."""


@dataclass
class PixelLook:
    """Decodes images: the usual look, without features.

    Attributes:
        images: extensions, best first.
        max_pixels: see `decode_image`.
        max_scans: likewise.
    """

    images: tuple[str, ...]
    max_pixels: float
    max_scans: int

    @property
    def members(self) -> frozenset[str]:
        """Extensions of images."""
        return frozenset(self.images)

    @property
    def shows(self) -> frozenset[str]:
        """Extensions of images, which show what a sample is."""
        return self.members

    def see(self, sample: int, key: str, contents: Mapping[str, bytes]) -> Seen:
        """The digest of the pixels."""
        return Seen(pixel_digest(self.decoded(contents)))

    def finish(self) -> Mapping[int, Seen | BadSample]:
        """Nothing more is known."""
        return {}

    def decoded(self, contents: Mapping[str, bytes]) -> Array:
        """(h, w, 3) uint8, of the best image. Raises BadSample."""
        image = next(contents[each] for each in self.images if each in contents)
        return decode_image(image, self.max_pixels, self.max_scans)


class Given(NamedTuple):
    """Where features lie that are in files of their own, apart from the shards.

    Attributes:
        rows: (n,) int64, counted through all files.
        total: how many there are in them.
    """

    rows: Array
    total: int


class Taken(NamedTuple):
    """Features of the samples that an embedder took in, in their order.

    Attributes:
        features: (n, d) float32; rows of bad ones hold anything.
        digests: n times 16 bytes.
        bad: why samples have no features, by their places among the n.
        given: where they come from, where that is files beside the shards; rows of bad ones hold anything.
    """

    features: Array
    digests: Sequence[bytes]
    bad: Mapping[int, BadSample]
    given: Given | None = None


class Embedder(Protocol):
    """Gives features of samples, shard after shard; what it loads serves all shards of a worker.

    Attributes:
        facts: counts since it was opened: images decoded, forwards.
    """

    facts: dict[str, int]

    @property
    def members(self) -> frozenset[str]:
        """Extensions that it reads."""

    def see(self, key: str, contents: Mapping[str, bytes]) -> None:
        """Takes a sample in. Raises BadSample."""

    def take(self, shard: str) -> Taken:
        """What became of the samples of a shard, by its name, that were taken in; forgets them."""


@dataclass(frozen=True)
class FeatureSource(ABC):
    """How the features of samples are had: picklable; named by all that they depend on.

    Attributes:
        mark: fingerprint of that, without the shards.
        of_pixels: whether samples are told apart by their pixels, not by their features.
        runs_network: whether a network looks, on GPUs where there are any.
        by_content: whether a shard's content decides, not how it is called.
    """

    by_content: ClassVar[bool] = True
    mark: str
    of_pixels: bool
    runs_network: bool

    @abstractmethod
    def open(self) -> Embedder:
        """Loads what is needed."""

    def file(self, identity: ShardIdentity, name: str) -> str:
        """The file of a shard's features: of the shard as it is now, in whatever run's list it stands.

        Shards of one name, size and time may lie in two folders of a disk, which is why the whole path counts there;
        what was moved is known by its content. Tags of object stores tell of the content.
        """
        place = identity.url if local_path(identity.url) is not None else name.rpartition("/")[2]
        shard = {"name": place if self.by_content else name, "size": identity.size, "tag": identity.tag}
        return f"features-{self.mark}/{digest(json.dumps(shard, sort_keys=True).encode())[:20]}.safetensors"


class FeatureLook:
    """Takes the features of a shard's samples from its file, or makes this file.

    Args:
        store: the run's files.
        file: of the shard's features.
        url: of the shard; None where features do not depend on its content alone.
        shard: its name.
        embedder: where they are not there yet, neither under this name nor of a shard of the same content.
    """

    def __init__(self, store: Store, file: str, url: str | None, shard: str, embedder: Embedder) -> None:
        self.store, self.file, self.shard, self.embedder = store, file, shard, embedder
        self.same = None if url is None or store.exists(file) else _file_of_content(file, url)
        if self.same is not None and store.exists(self.same):
            other = read_json(store, self.same)["file"]
            if store.exists(other):
                write(store, file, dict(map_arrays(store, other)))
        self.known = _Known(store, file) if store.exists(file) else None
        self.samples: list[int] = []
        self.bad: list[tuple[int, str, str]] = []

    @property
    def members(self) -> frozenset[str]:
        """Nothing where the features are there."""
        return self.embedder.members if self.known is None else frozenset()

    @property
    def shows(self) -> frozenset[str]:
        """What was or is read for features."""
        return self.embedder.members

    def see(self, sample: int, key: str, contents: Mapping[str, bytes]) -> Seen:
        """As of `Look`; a sample that cannot be seen is noted, so that it need not be tried again."""
        if self.known is not None:
            return self.known.see(sample)
        try:
            self.embedder.see(key, contents)
        except BadSample as bad:
            self.bad.append((sample, bad.reason, bad.text))
            raise
        self.samples.append(sample)
        return Seen(b"")

    def finish(self) -> Mapping[int, Seen | BadSample]:
        """Writes the file, where it is not there; says of each sample where its features lie."""
        if self.known is not None:
            return {}
        taken = self.embedder.take(self.shard)
        good = [place for place in range(len(self.samples)) if place not in taken.bad]
        found: dict[int, Seen | BadSample] = {self.samples[place]: bad for place, bad in taken.bad.items()}
        found |= {self.samples[place]: Seen(taken.digests[place], at) for at, place in enumerate(good)}
        self.bad += [(self.samples[place], bad.reason, bad.text) for place, bad in taken.bad.items()]
        features, scale = packed(taken.features[good])
        digests = b"".join(taken.digests[place] for place in good)
        content = {
            "sample": np.array(self.samples, np.int32)[good],
            "digest": np.frombuffer(digests, "<u8").reshape(-1, 2),
            "features": features,
            "scale": scale,
            "bad": np.frombuffer(json.dumps(sorted(self.bad)).encode(), np.uint8),
        }
        if taken.given is not None:
            content |= {"given": taken.given.rows[good], "given_total": np.array([taken.given.total])}
        write(self.store, self.file, content)
        if self.same is not None:
            write(self.store, self.same, {"file": self.file})
        return found


def _file_of_content(file: str, url: str) -> str | None:
    """What says of which file a local shard's content has the features; None elsewhere, where tags tell of content.

    A copy of a shard has another time, and a time is what tells local files apart; reading them is little beside a
    network's work.
    """
    import xxhash  # not needed to score arrays in memory

    path = local_path(url)
    if path is None:
        return None
    found = xxhash.xxh3_128()
    with open(path, "rb") as shard:
        while data := shard.read(2**20):
            found.update(data)
    return f"{file.rpartition('/')[0]}/contents/{found.hexdigest()}.json"


class _Known:
    """What a shard's file of features says of its samples."""

    def __init__(self, store: Store, file: str) -> None:
        arrays = map_arrays(store, file)
        self.places = {int(sample): place for place, sample in enumerate(arrays["sample"])}
        self.digests: Array = arrays["digest"]
        bad = json.loads(bytes(arrays["bad"]))
        self.bad: dict[int, Any] = {sample: (reason, text) for sample, reason, text in bad}

    def see(self, sample: int) -> Seen:
        if sample in self.bad:
            raise BadSample(*self.bad[sample])
        if sample not in self.places:
            raise BadSample("missing_features", "its features were not made when its shard was looked at")
        place = self.places[sample]
        return Seen(self.digests[place].tobytes(), place)


def packed(features: Array) -> tuple[Array, Array]:
    """Features (n, d) as they are stored: float16 and (1,) float32 of a power of two that they are multiplied by."""
    largest = float(np.abs(features).max(initial=0.0))
    exponent = int(np.frexp(largest)[1]) - LARGEST_EXPONENT if largest else 0
    return np.ldexp(features, -exponent).astype(np.float16), np.ldexp(np.ones(1, np.float32), exponent)
