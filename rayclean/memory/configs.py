"""What `LabelScorer` is set to as the config of a run: on images, on features, on predictions that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayclean.config import Config, parse_config
from rayclean.config.sections import NO_IMAGE
from rayclean.errors import ConfigError
from rayclean.memory.merge import MEMORY
from rayclean.memory.run import train_fields_of
from rayclean.train.heads import HeadSettings

SOURCE = "LabelScorer"  # in errors: where a field comes from
Tree = dict[str, Any]


def on_images(tree: Tree, num_classes: int, size: int | None) -> Config:
    """The config of a run on images.

    Args:
        tree: sections of a config, all but `data`.
        num_classes: K.
        size: pixels per side; None while there are no images.
    """
    # That `osd` has verified samples is seen by `fit`, which is given them.
    influence = {**tree.get("influence", {}), "validation": MEMORY}
    data = {"shards": MEMORY, "classes": num_classes, "size": size}
    return parse_config({**tree, "data": data, "influence": influence}, SOURCE)


def on_features(tree: Tree, num_classes: int, heads: HeadSettings | None) -> Config:
    """The config of a run on features, whose heads learn as `heads` or the tree says.

    Raises:
        ConfigError: a score needs more than features.
    """
    if "osd" in (tree["scores"] or ()):
        raise ConfigError("score osd needs verified samples beside these; name it in a run, or leave it out")
    data = {"shards": MEMORY, "classes": num_classes, "features": "npy", "image": NO_IMAGE}
    train = {} if heads is None else {"train": {**tree.get("train", {}), **train_fields_of(heads)}}
    return parse_config({**tree, **train, "data": data, "model": {}}, SOURCE)


def on_predictions(tree: Tree, num_classes: int, possible: Sequence[str]) -> Config:
    """The config of what predictions allow, with those of the `possible` scores that are wanted, by default all.

    Raises:
        ConfigError: others are wanted.
    """
    wanted = list(tree["scores"] or possible)
    if not set(wanted) <= set(possible):
        raise ConfigError(f"scores: predictions give {', '.join(possible)}; the others need images")
    return parse_config({**tree, "scores": wanted, "data": {"shards": MEMORY, "classes": num_classes}}, SOURCE)
