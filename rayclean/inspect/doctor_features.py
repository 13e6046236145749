"""What `rayclean doctor` says of features: whether they can be had, and whether a run should have any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rayclean.catalog.looks import Embedder, FeatureSource, PixelLook, Seen
from rayclean.config import Config
from rayclean.config.features_text import MemberFeatures, parse_features
from rayclean.embed.frozen import FrozenNetwork, frozen_settings
from rayclean.embed.given import open_given
from rayclean.embed.sources import feature_source
from rayclean.run.start import score_precision
from rayclean.schema import Array
from rayclean.shards.decode import BadSample
from rayclean.storage.store import Store

PHOTOGRAPH = 64  # pixels of the median short side from which a pretrained network serves better [our choice]
PRETRAINED = "timm:vit_small_patch14_dinov2.lvd142m"


def describe_features(config: Config) -> str:
    """How a run on features has them, in words; loads a network's weights, or opens the files.

    Raises:
        RaycleanError: they cannot be had.
    """
    if config.model.frozen:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = score_precision(config, Store(config.run.dir))
        how = frozen_settings(config.model, config.data, device, precision, config.score.batch_size)
        return (
            f"model.name {how.name}: its weights ({how.digest[:8]}) are here; {FrozenNetwork(how).dim:,} features of "
            f"images of {how.size} px"
        )
    features = parse_features(config.data.features or "")
    if isinstance(features, MemberFeatures):
        return f"data.features: a member .{features.extension} of each sample; no network is needed"
    given = open_given(features)
    return f"{given.source}: {given.num_rows:,} rows of {given.dim:,} features; no network is needed"


def given_source(config: Config) -> FeatureSource | None:
    """Features that are there already; None where images are looked at."""
    return None if config.data.features is None else feature_source(config, "cpu", "float32")


@dataclass
class SizedLook(PixelLook):
    """The usual look, which notes how large images are.

    Attributes:
        sides: the shorter one of each image, pixels.
    """

    sides: list[int] = field(default_factory=list)

    def decoded(self, contents: Mapping[str, bytes]) -> Array:
        """As of `PixelLook`."""
        pixels = super().decoded(contents)
        self.sides.append(min(pixels.shape[:2]))
        return pixels


class GivenLook:
    """Takes the features of a shard's samples, and keeps none.

    Args:
        embedder: gives them.
        shard: its name.

    Attributes:
        width: of the features, once the shard is finished; 0 where it has none.
    """

    def __init__(self, embedder: Embedder, shard: str) -> None:
        self.embedder, self.shard, self.width = embedder, shard, 0
        self.samples: list[int] = []

    @property
    def members(self) -> frozenset[str]:
        """Those of the features."""
        return self.embedder.members

    @property
    def shows(self) -> frozenset[str]:
        """The same."""
        return self.embedder.members

    def see(self, sample: int, key: str, contents: Mapping[str, bytes]) -> Seen:
        """Takes a sample in. Raises BadSample."""
        self.embedder.see(key, contents)
        self.samples.append(sample)
        return Seen(b"")

    def finish(self) -> Mapping[int, Seen | BadSample]:
        """Which samples have none that can be used."""
        taken = self.embedder.take(self.shard)
        self.width = taken.features.shape[1] if len(taken.features) > len(taken.bad) else 0
        digests = [taken.bad.get(place) or Seen(digest) for place, digest in enumerate(taken.digests)]
        return dict(zip(self.samples, digests, strict=True))


def other_widths(widths: Sequence[tuple[str, int]]) -> Iterator[str]:
    """What is said of shards, by name and width, whose features are not as wide as those of the first one."""
    known = [(name, width) for name, width in widths if width]
    for name, width in known[1:]:
        if width != known[0][1]:
            yield (
                f"{name}: its samples have {width} features, those of {known[0][0]} have {known[0][1]}; give features "
                "of one network for all shards"
            )


def missed_network(config: Config, sides: Sequence[int]) -> str | None:
    """What to write where photographs are to train a network from nothing; None elsewhere.

    Args:
        config: of a run.
        sides: shorter sides of images, pixels.
    """
    is_from_nothing = config.model.weights is None and config.train.from_ is None and config.train.epochs
    if config.on_features or not is_from_nothing or not sides or (median := float(np.median(sides))) < PHOTOGRAPH:
        return None
    return (
        f"images of {median:.0f} px at the median, and a network that learns from nothing: a pretrained one that looks "
        f"once at each finds more wrong labels in a fraction of the time; write model: {{name: {PRETRAINED}, frozen: "
        "true}, or where nothing can be fetched model: {name: lite, frozen: true}"
    )
