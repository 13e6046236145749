"""The cells that labels are judged in by features and predictions that are there: which rows, which labels are wrong.

The cells of `DESIGN` are for choosing settings, those of `FROZEN` for what these give on other rows or labels; `ALL`
has rows of both.

Letters: N rows, d features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rayclean.catalog.imbalance import class_targets, is_kept, keep_thresholds
from rayclean.catalog.instance_noise import instance_labels
from rayclean.catalog.noise import flip_labels
from rayclean.errors import ConfigError, InputError
from rayclean.schema import Array
from rayclean.storage.draws import draw_id, pixel_digest
from tools.data.frozen_features import read_samples

CLEAN = "clean_label"
RATIO = 10.0  # largest / smallest class where classes are of unequal size


@dataclass(frozen=True)
class Folders:
    """Where the files of the cells lie.

    Attributes:
        features: NAME.npz of tools/data/frozen_features.py.
        peers: NAME.npz with `pred_probs` (N, K), `given` (N,) and `true` (N,).
        images: NAME.tar, the shards that features were made of; for noise that depends on images.
    """

    features: Path | None = None
    peers: Path | None = None
    images: Path | None = None

    def file(self, kind: str, name: str) -> Path:
        """A file of a folder.

        Raises:
            ConfigError: the folder is not given.
            InputError: it is not in there.
        """
        folder: Path | None = getattr(self, kind)
        if folder is None:
            raise ConfigError(f"{name} is needed, and no folder of {kind} is given; name it: --{kind} FOLDER")
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is not there; name the folder that holds {name}: --{kind} FOLDER")
        return folder / name


@dataclass(frozen=True)
class Rows:
    """Labels and what they are judged by.

    Attributes:
        labels: (N,) int64.
        truth: (N,) int64, -1 where no class is right.
        num_classes: K.
        inputs: (N, d) features, or (N, K) predictions.
    """

    labels: Array
    truth: Array
    num_classes: int
    inputs: Array

    @property
    def clean(self) -> Array:
        """(N,) bool, whether labels are right."""
        return np.asarray(self.labels == self.truth)


@dataclass(frozen=True)
class FeatureCell:
    """Rows by their features.

    Attributes:
        files: whose features are taken together.
        num_classes: K.
        label: the field of the given labels, `CLEAN` where they are made wrong here.
        kind: of `noise.kind`; empty for labels as they are given.
        rate: of `noise.rate`.
        imbalance: of `noise.imbalance`.
        shards: by file the shard of its images; empty where none is needed.
        seeds: of noise and scores.
    """

    files: tuple[str, ...]
    num_classes: int
    label: str = CLEAN
    kind: str = ""
    rate: float | None = None
    imbalance: str = "none"
    shards: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    def read(self, folders: Folders, seed: int) -> Rows:
        """The cell's rows, with noise of a seed.

        Raises:
            ConfigError: a folder is not given.
            InputError: a file is missing, or images are not those of the features.
        """
        fields = ("features", "keys", CLEAN, self.label)
        parts = [_read(folders.file("features", f"{name}.npz"), fields) for name in self.files]
        features, keys, truth, labels = (np.concatenate([part[name] for part in parts]) for name in fields)
        whole = Rows(labels.astype(np.int64), truth.astype(np.int64), self.num_classes, features)
        if not self.kind:
            return whole
        ids = [draw_id(str(key), pixel_digest(row)) for key, row in zip(keys, features, strict=True)]
        draws = np.array(ids, np.uint64)
        counts = np.bincount(whole.truth, minlength=self.num_classes)
        targets = class_targets(self.imbalance, counts, RATIO)
        kept = is_kept(whole.truth, draws, keep_thresholds(whole.truth, draws, targets, seed), seed)
        noisy = self._noisy(folders, keys[kept], whole.truth[kept], draws[kept], seed)
        return Rows(noisy.astype(np.int64), whole.truth[kept], self.num_classes, features[kept])

    def _noisy(self, folders: Folders, keys: Array, truth: Array, draws: Array, seed: int) -> Array:
        if self.kind != "instance":
            return flip_labels(self.kind, truth, draws, self.num_classes, self.rate, seed)
        paths = [folders.file("images", f"{name}.tar") for name in self.shards]
        found, images, _ = read_samples([str(path) for path in paths])
        by_key = dict(zip(found, images, strict=True))
        missing = next((str(key) for key in keys if str(key) not in by_key), None)
        if missing is not None:
            step = "name the folder of the shards that features were made of: --images FOLDER"
            raise InputError(f"{paths[0]}: no image of sample '{missing}', which has features; {step}")
        return instance_labels(
            np.stack([by_key[str(key)] for key in keys]), truth, draws, self.num_classes, self.rate or 0.0, seed
        )


@dataclass(frozen=True)
class PeerCell:
    """Rows by predictions that others have published; nothing in them is drawn.

    Attributes:
        file: whose predictions.
        start: the first row.
        stop: the row after the last one.
    """

    file: str
    start: int
    stop: int
    seeds: tuple[int, ...] = (0,)

    def read(self, folders: Folders, seed: int) -> Rows:
        """As of `FeatureCell`."""
        columns = _read(folders.file("peers", f"{self.file}.npz"), ("given", "true", "pred_probs"))
        part = slice(self.start, self.stop)
        labels, truth = (columns[name][part].astype(np.int64) for name in ("given", "true"))
        return Rows(labels, truth, columns["pred_probs"].shape[1], columns["pred_probs"][part])


Cell: TypeAlias = FeatureCell | PeerCell


def _read(file: Path, fields: tuple[str, ...]) -> dict[str, Array]:
    with np.load(file) as found:
        missing = [name for name in fields if name not in found]
        if missing:
            raise InputError(f"{file}: arrays {', '.join(fields)} expected, found none called {', '.join(missing)}")
        return {name: found[name] for name in fields}


def _cifar10n(part: int) -> FeatureCell:
    return FeatureCell((f"cifar10n-{part}",), 10)


def _cifar100n(part: int) -> FeatureCell:
    return FeatureCell((f"cifar100n-{part}",), 100)


OF_SHARD: dict[str, Callable[[int], FeatureCell]] = {
    "human": lambda part: replace(_cifar10n(part), label="worse_label"),
    "aggregate": lambda part: replace(_cifar10n(part), label="aggre_label"),
    "asymmetric": lambda part: replace(_cifar10n(part), kind="asymmetric_cifar10", rate=0.4),
    "symmetric3": lambda part: replace(_cifar10n(part), kind="symmetric", rate=0.3),
    "symmetric8": lambda part: replace(_cifar10n(part), kind="symmetric", rate=0.8),
    "step": lambda part: replace(_cifar10n(part), kind="symmetric", rate=0.3, imbalance="step"),
    "cifar100n": lambda part: replace(_cifar100n(part), label="label"),
}
TOGETHER = tuple(name for name in OF_SHARD if name != "step")
PEERS = ("worst-resnet18", "worst-swin_base", "aggre-resnet18", "aggre-swin_base")

DESIGN: dict[str, Cell] = {
    **{f"{name}_0": cell(0) for name, cell in OF_SHARD.items()},
    **{f"{name}_0": PeerCell(name, 10_000, 30_000) for name in PEERS},
}
FROZEN: dict[str, Cell] = {
    **{f"{name}_1": cell(1) for name, cell in OF_SHARD.items()},
    **{f"random1_{part}": replace(_cifar10n(part), label="random_label1") for part in (0, 1)},
    "symmetric5_1": replace(_cifar10n(1), kind="symmetric", rate=0.5),
    "long_tail_1": replace(_cifar10n(1), kind="symmetric", rate=0.3, imbalance="long_tail"),
    "instance_1": replace(_cifar10n(1), kind="instance", rate=0.3, shards=("cifar10n-train-000001",)),
    "next_class_1": replace(_cifar100n(1), kind="next_class", rate=0.3),
    **{f"{name}_1": PeerCell(name, 30_000, 50_000) for name in PEERS},
}
ALL: dict[str, Cell] = {
    f"{name}_all": replace(OF_SHARD[name](0), files=OF_SHARD[name](0).files + OF_SHARD[name](1).files)
    for name in TOGETHER
}
REAL: dict[str, Cell] = {"roman": FeatureCell(("roman",), 10, label="label")}
CELLS: dict[str, Cell] = {**DESIGN, **REAL, **FROZEN, **ALL}
