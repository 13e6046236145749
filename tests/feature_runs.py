"""Shards of samples with features and no images, and small runs on them: clusters of classes, some labels wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rayclean.config import Config, parse_config
from rayclean.schema import Array
from tests.helpers import Content, write_tar

NUM_CLASSES, DIM, ROWS = 3, 12, 150
WRONG_EVERY = 6  # one label in so many is the next class


class Clusters(NamedTuple):
    """Rows around the centres of their classes.

    Attributes:
        features: (N, d) float32.
        given: (N,) labels, some of them wrong.
        truth: (N,) right labels.
    """

    features: Array
    given: Array
    truth: Array


def clusters(rows: int = ROWS, dim: int = DIM, num_classes: int = NUM_CLASSES, seed: int = 0) -> Clusters:
    """Rows of all classes in turn, one label in `WRONG_EVERY` that of the next class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(rows) % num_classes
    centres = 3 * rng.normal(size=(num_classes, dim))
    features = (centres[truth] + rng.normal(size=(rows, dim))).astype(np.float32)
    given = np.where(rng.integers(0, WRONG_EVERY, rows) == 0, (truth + 1) % num_classes, truth)
    return Clusters(features, given, truth)


def npy_bytes(values: Any) -> bytes:
    """An array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def key_of(row: int) -> str:
    """The key of a row of the shards."""
    return f"s{row:04d}"


def members_of(key: str, features: Any, given: int, truth: int) -> list[Content]:
    """A sample: label, features and truth; no features where they are None."""
    found = [(f"{key}.cls", str(given).encode()), (f"{key}.json", json.dumps({"truth": int(truth)}).encode())]
    return found if features is None else [*found, (f"{key}.npy", npy_bytes(features))]


def write_feature_shards(
    folder: Path,
    rows: Clusters,
    num_shards: int = 2,
    instead: Mapping[int, Any] | None = None,
    images: Mapping[int, bytes] | None = None,
) -> str:
    """Writes rows as shards of even size; returns their pattern.

    Args:
        folder: where they lie.
        rows: what they hold.
        num_shards: how many.
        instead: by row what stands in the place of its features; None for nothing.
        images: by row, where it has one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = dict(instead or {})
    for shard, places in enumerate(np.array_split(np.arange(len(rows.given)), num_shards)):
        members: list[Content] = []
        for row in places.tolist():
            features = others.get(row, rows.features[row])
            members += members_of(key_of(row), features, rows.given[row], rows.truth[row])
            members += [(f"{key_of(row)}.png", images[row])] if images and row in images else []
        write_tar(folder / f"{shard:02d}.tar", members)
    return f"{folder}/*.tar"


def feature_config(run_dir: Path, shards: str | Sequence[str], **sections: Mapping[str, Any]) -> Config:
    """A small run on features; `sections` are laid over it: `feature_config(run, shards, data={"features": ...})`."""
    tree: dict[str, dict[str, Any]] = {
        "run": {"dir": str(run_dir), "executor": "inline"},
        "data": {
            "shards": shards,
            "features": "npy",
            "image": "none",
            "truth": "json:truth",
            "classes": NUM_CLASSES,
        },
        "train": {"epochs": 3, "folds": 3},
        "neighbors": {"vote_num": 5},
        "blocks": {"rows": 64, "index_rows": 64, "table_rows": 128},
    }
    for name, changes in sections.items():
        tree[name] = {**tree.get(name, {}), **changes}
    return parse_config(tree)
