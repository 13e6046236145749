"""The cells of the IOFM and INN papers' tables: noise, network, schedule, printed figures; and a cell's rows.

What the papers leave open, and what is taken here [our choice]:

- Training: SGD with momentum .9, batches of 128, rate .02 [INN, 4.1; IOFM gives none]. INN divides the rate by 5 at
  1/2 and at 3/4 of the epochs; a cosine from .02 takes its place (there was no `step` schedule) [our choice]. Nesterov,
  weight decay 5e-4, MixUp's alpha 1, crop and flip [our choice].
- IOFM: 150 epochs, a snapshot every 10, L = 10, H = 3 [IOFM, Alg. 1]. INN: L = H = 10, features of a network trained
  by cross-entropy, 50 to 300 epochs [INN, 4.1]; here its score is taken every 50 epochs, and `best` is over these.
- IOFM's `loss` and `aum` stand beside the MixUp network's; `loss_ce` and `aum_ce` are those of a network trained by
  cross-entropy. Which of the two the paper means is open.
- IOFM's imbalance ratio (10 here, as in INN 4.4), the rate of its long tail, and the rates on CIFAR-100 [our choice].
- INN's table has one figure per cell, not best and final; its protocol is not IOFM's, so it has cells of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rayclean.catalog.imbalance import class_targets, is_kept, keep_thresholds, relabel
from rayclean.catalog.labels import ClassList, LabelField
from rayclean.catalog.noise import flip_labels
from rayclean.memory.rows import Samples
from rayclean.schema import Array
from rayclean.shards.decode import decode_image
from rayclean.shards.stream import stream_shard
from rayclean.shards.urls import expand_shards
from rayclean.storage.draws import pixel_digest, smallest_draws

TRAIN = {"loss": "mixup", "mixup_alpha": 1.0, "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 128}
SCORE = {"batch_size": 512}
IOFM_NUM, IOFM_STEPS = 10, 3
INN_NUM, INN_STEPS = 10, 10
INN_EVERY = 50
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
MAX_PIXELS = 50e6
ROWS_SALT = "paper.rows"

OF_IOFM = ("loss", "ens_loss", "margin", "aum", "iofm", "iofm_last", "inn")
OF_CE = ("loss_ce", "ens_loss_ce", "margin_ce", "aum_ce")
OF_INN = ("loss", "inn", "loss_ce", "loss_ce_ne")

Published = tuple[float, float | None]  # AUROC best and final; None where the paper has one figure


@dataclass(frozen=True)
class Cell:
    """One column of a paper's table.

    Attributes:
        data: the data set that it is of; the user hands in the images.
        num_classes: K of the data set.
        noise: kind of `rayclean.catalog.noise.flip_labels`.
        rate: of the noise.
        scores: what is compared.
        imbalance: kind of `rayclean.catalog.imbalance.class_targets`.
        ratio: largest / smallest class.
        classes: of `two_class`, from 0.
        model: the network.
        epochs: of every role.
        snapshot_every: epochs from one snapshot to the next.
        published: by score.
    """

    data: str
    num_classes: int
    noise: str
    rate: float
    scores: tuple[str, ...] = (*OF_IOFM, *OF_CE)
    imbalance: str = "none"
    ratio: float = 10.0
    classes: tuple[int, int] | None = None
    model: str = "preact_resnet18"
    epochs: int = 150
    snapshot_every: int = 10
    published: dict[str, Published] = field(default_factory=dict)

    def snapshots(self) -> list[int]:
        """Epochs at which `iofm` is taken."""
        return [*range(self.snapshot_every, self.epochs, self.snapshot_every), self.epochs]

    def inn_epochs(self) -> list[int]:
        """Epochs at which `inn` is taken."""
        return [epoch for epoch in self.snapshots() if epoch % INN_EVERY == 0 or epoch == self.epochs]

    def settings(self) -> dict[str, Any]:
        """What `LabelScorer` is made with."""
        return {
            "model": self.model,
            "scores": list(self.scores),
            "train": {**TRAIN, "epochs": self.epochs, "snapshot_every": self.snapshot_every},
            "score": SCORE,
            "iofm": {"num": IOFM_NUM, "steps": IOFM_STEPS},
            "inn": {"num": INN_NUM, "steps": INN_STEPS, "epochs": self.inn_epochs()},
        }


def _of_inn(cell: Cell, published: float | None = None) -> Cell:
    figures: dict[str, Published] = {} if published is None else {"inn": (published, None)}
    return replace(cell, scores=OF_INN, epochs=300, snapshot_every=INN_EVERY, published=figures)


def _pair(first: int, second: int) -> Cell:
    """Two classes of CIFAR-10, the second cut to a tenth, labels flipped with probability .3 [INN, 4.4]."""
    return _of_inn(Cell("cifar10", 10, "symmetric_exclusive", 0.3, imbalance="two_class", classes=(first, second)))


_SYMMETRIC_8 = Cell("cifar10", 10, "symmetric", 0.8)
_SYMMETRIC_9 = Cell("cifar10", 10, "symmetric", 0.9)
_ASYMMETRIC = Cell("cifar10", 10, "asymmetric_cifar10", 0.4)
_IMBALANCED = Cell("cifar10", 10, "asymmetric_cifar10", 0.2, imbalance="step")
_WIDE = "wide_resnet28_2"

CELLS = {
    # Figures: IOFM (AAAI 2024), AUROC "best (final)".
    "iofm-cifar10-asymmetric-0.4": replace(
        _ASYMMETRIC, published={"loss": (0.933, 0.753), "aum": (0.927, 0.874), "iofm": (0.934, 0.921)}
    ),
    "iofm-cifar10-symmetric-0.8": replace(
        _SYMMETRIC_8, published={"loss": (0.919, 0.569), "aum": (0.948, 0.809), "iofm": (0.954, 0.907)}
    ),
    "iofm-cifar10-symmetric-0.9": replace(
        _SYMMETRIC_9, published={"loss": (0.836, 0.556), "aum": (0.869, 0.687), "iofm": (0.887, 0.811)}
    ),
    "iofm-cifar10-step-asymmetric-0.2": _IMBALANCED,
    "iofm-cifar10-long-tail-asymmetric-0.2": replace(_IMBALANCED, imbalance="long_tail"),
    "iofm-cifar100-next-class-0.4": Cell("cifar100", 100, "next_class", 0.4),
    "iofm-cifar100-symmetric-0.8": Cell("cifar100", 100, "symmetric", 0.8),
    "iofm-cifar10-symmetric-0.8-wide": replace(_SYMMETRIC_8, model=_WIDE),
    # Figures: INN, Table 1.
    "inn-cifar10-symmetric-0.8": _of_inn(_SYMMETRIC_8, 0.885),
    "inn-cifar10-symmetric-0.9": _of_inn(_SYMMETRIC_9, 0.817),
    "inn-cifar10-asymmetric-0.4": _of_inn(_ASYMMETRIC),
    "inn-cifar10-symmetric-0.8-wide": _of_inn(replace(_SYMMETRIC_8, model=_WIDE)),
    # INN's pairs (1, 2), (3, 8), (4, 5), (7, 9) count from 1.
    "inn-cifar10-pair-0-1": _pair(0, 1),
    "inn-cifar10-pair-2-7": _pair(2, 7),
    "inn-cifar10-pair-3-4": _pair(3, 4),
    "inn-cifar10-pair-6-8": _pair(6, 8),
}


@dataclass(frozen=True)
class Noisy:
    """The rows of a cell, with given labels, and what only the evaluation may see.

    Attributes:
        images: (N, S, S, 3) uint8.
        keys: of the rows, by which their draws are made.
        truth: (N,) true labels.
        num_classes: K of given labels.
    """

    images: Array
    samples: Samples
    keys: list[str]
    truth: Array
    num_classes: int

    def digest(self) -> str:
        """A hash of the images and of both labels."""
        columns = (self.samples.digests, self.samples.labels, self.truth.astype(np.int32))
        return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def read_images(source: str, label: str, num_classes: int) -> tuple[Array, Array]:
    """(N, S, S, 3) uint8 images and (N,) true labels of an .npz file, a folder of shards or a pattern of shards."""
    if source.endswith(".npz"):
        with np.load(source) as arrays:
            return arrays["images"], arrays["labels"].astype(np.int64)
    field, classes = LabelField.parse(label), ClassList.load(num_classes)
    images, labels = [], []
    for url in expand_shards(f"{source}/*.tar" if Path(source).is_dir() else source):
        for _, key, members in stream_shard(url, None):
            image = next(content for name, content in members.items() if name in EXTENSIONS)
            images.append(decode_image(image, MAX_PIXELS))
            labels.append(classes.index_of(field.read(key, members)))
    return np.stack(images), np.array(labels)


def make_noisy(cell: Cell, images: Array, truth: Array, rows: int | None, seed: int) -> Noisy:
    """Takes `rows` of the images, then the classes' shares, then flips labels: the order that the papers have."""
    digests = [pixel_digest(image) for image in images]
    every = Samples.make(truth, digests, [str(row) for row in range(len(images))])
    draws = every.draws
    chosen = np.flatnonzero(smallest_draws(seed, ROWS_SALT, draws, rows or len(images)))
    if cell.imbalance != "none":
        here, ids = truth[chosen], draws[chosen]
        targets = class_targets(cell.imbalance, np.bincount(here, minlength=cell.num_classes), cell.ratio, cell.classes)
        chosen = chosen[is_kept(here, ids, keep_thresholds(here, ids, targets, seed), seed)]
    truth = truth[chosen] if cell.classes is None else relabel(truth[chosen], cell.classes)
    num_classes = cell.num_classes if cell.classes is None else len(cell.classes)
    given = flip_labels(cell.noise, truth, draws[chosen], num_classes, cell.rate, seed)
    samples = Samples(given, every.digests[chosen], draws[chosen])
    return Noisy(images[chosen], samples, [str(row) for row in chosen], truth, num_classes)
