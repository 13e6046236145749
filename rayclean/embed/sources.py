"""Where the features of a run come from: a frozen network that looks at the images, or what another tool has left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rayclean.catalog.looks import Embedder, FeatureSource, Given, PixelLook, Taken
from rayclean.config import Config
from rayclean.config.features_text import Features, MemberFeatures, parse_features
from rayclean.embed.frozen import FrozenNetwork, FrozenSettings, frozen_settings
from rayclean.embed.given import GivenFeatures, given_digest, open_given, read_member, stacked
from rayclean.schema import NO_ROW, Array
from rayclean.shards.decode import BadSample, Pixels
from rayclean.storage.draws import pixel_digest
from rayclean.storage.fingerprint import fingerprint

VERSION = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrozenSource(FeatureSource):
    """A frozen network.

    Attributes:
        network: and how it is run.
        pixels: how images are decoded.
    """

    network: FrozenSettings
    pixels: PixelLook

    def open(self) -> Embedder:
        """The network is loaded when the first image is seen."""
        return _Frozen(self.network, self.pixels)


class _Frozen:
    """Runs the network on images as they come, one batch at a time."""

    def __init__(self, settings: FrozenSettings, pixels: PixelLook) -> None:
        self.settings, self.pixels = settings, pixels
        self.facts = {"decodes": 0, "forwards": 0}
        self.waiting: list[Pixels] = []
        self.done: list[Array] = []
        self.digests: list[bytes] = []

    @cached_property
    def network(self) -> FrozenNetwork:
        return FrozenNetwork(self.settings)

    @property
    def members(self) -> frozenset[str]:
        return self.pixels.members

    def see(self, key: str, contents: Mapping[str, bytes]) -> None:
        image = self.pixels.decoded(contents)
        self.facts["decodes"] += 1
        self.waiting.append(image)
        self.digests.append(pixel_digest(image))
        if len(self.waiting) == self.settings.batch_size:
            self._run()

    def _run(self) -> None:
        self.done.append(self.network.features(self.waiting))
        self.facts["forwards"] += len(self.waiting)
        self.waiting = []

    def take(self, shard: str) -> Taken:
        if self.waiting:
            self._run()
        features = np.concatenate(self.done) if self.done else np.empty((0, 0), np.float32)
        text = "the network gives numbers that are not finite"
        bad = {
            int(place): BadSample("bad_features", text) for place in np.flatnonzero(~np.isfinite(features).all(axis=1))
        }
        taken = Taken(features, self.digests, bad)
        self.done, self.digests = [], []
        return taken


@dataclass(frozen=True)
class MemberSource(FeatureSource):
    """A member of each sample, by its extension."""

    extension: str

    def open(self) -> Embedder:
        """Opens nothing: there is no network to load."""
        return _Members(self.extension)


class _Members:
    def __init__(self, extension: str) -> None:
        self.extension = extension
        self.facts: dict[str, int] = {}
        self.found: list[Array] = []

    @property
    def members(self) -> frozenset[str]:
        return frozenset([self.extension])

    def see(self, key: str, contents: Mapping[str, bytes]) -> None:
        if self.extension not in contents:
            raise BadSample("missing_features", f"no member .{self.extension}")
        self.found.append(read_member(contents[self.extension], self.extension))

    def take(self, shard: str) -> Taken:
        features, fits = stacked(self.found)
        width = features.shape[1]
        bad = {
            int(place): BadSample("bad_features", f"{len(self.found[place])} numbers, most samples have {width}")
            for place in np.flatnonzero(~fits)
        }
        self.found = []
        return Taken(features, list(map(pixel_digest, features)), bad)


@dataclass(frozen=True)
class FileSource(FeatureSource):
    """Files beside the shards, of which each shard asks for its keys, and by its name where they have it."""

    by_content: ClassVar[bool] = False
    features: Features

    def open(self) -> Embedder:
        """Opens the files when the first shard is taken."""
        return _Files(self.features)


class _Files:
    members: frozenset[str] = frozenset()

    def __init__(self, features: Features) -> None:
        self.features = features
        self.facts: dict[str, int] = {}
        self.keys: list[str] = []

    @cached_property
    def given(self) -> GivenFeatures:
        if isinstance(self.features, MemberFeatures):
            raise TypeError("members are no files")
        return open_given(self.features)

    def see(self, key: str, contents: Mapping[str, bytes]) -> None:
        self.keys.append(key)

    def take(self, shard: str) -> Taken:
        rows = self.given.places(shard, self.keys)
        values = self.given.read(rows)
        bad = {}
        for place in np.flatnonzero(np.isnan(values[:, 0])):
            text = f"cannot be used: missing, not finite, or not {self.given.dim} numbers"
            bad[int(place)] = (
                BadSample("missing_features", f"{self.given.source} has none for it")
                if rows[place] == NO_ROW
                else BadSample("bad_features", text)
            )
        self.keys = []
        return Taken(values, list(map(pixel_digest, values)), bad, Given(rows, self.given.num_rows))


def features_asked(config: Config) -> dict[str, Any] | None:
    """What a config says of features, without looking at weights or files; None without features."""
    data, model = config.data, config.model
    if not model.frozen:
        return None if data.features is None else {"features": data.features}
    images = data.model_dump(mode="json", include={"size", "mean", "std", "max_pixels", "max_scans", "image"})
    score = config.score.model_dump(mode="json")
    return {"model": model.model_dump(mode="json"), "data": images, "score": score}


def feature_source(config: Config, device: str, precision: str) -> FeatureSource | None:
    """What gives the features of a run; None where there are none.

    Loads the weights of a frozen network, or looks at the files, for their digests.

    Args:
        config: of the run.
        device: where a network would run.
        precision: of it, resolved.

    Raises:
        ConfigError: weights or files cannot be had.
    """
    data = config.data
    if config.model.frozen:
        log.info("loading the weights of %s, or fetching them where they are not here", config.model.name)
        settings = frozen_settings(config.model, data, device, precision, config.score.batch_size)
        pixels = PixelLook(data.image_extensions, data.max_pixels, data.max_scans)
        how = {"images": list(pixels.images), "max_pixels": pixels.max_pixels, "max_scans": pixels.max_scans}
        mark = fingerprint("frozen", VERSION, {**settings.fields(), **how}, [])
        return FrozenSource(mark, True, True, settings, pixels)
    if data.features is None:
        return None
    features = parse_features(data.features)
    if isinstance(features, MemberFeatures):
        mark = fingerprint("member", VERSION, {"extension": features.extension}, [])
        return MemberSource(mark, False, False, features.extension)
    mark = fingerprint("files", VERSION, {}, [given_digest(features)])
    open_given(features)  # what cannot be read is an error now, not in a worker
    return FileSource(mark, False, False, features)
