"""What the peers train: a plain loop on images in memory, by the settings of a cell's role `main`.

The network, the optimizer, its schedule, the batches' size, augmentation and precision are the cell's; the loop, the
order of the rows and what is done with the networks are not rayclean's stages.

- cleanlab [Northcutt et al., JAIR 2021] wants out-of-sample probabilities: the network that predicts a row has not
  been trained on it.
- AUM [Pleiss et al., NeurIPS 2020] is the mean margin of a row's own logits while it is trained on, as the authors'
  package `aum` sums it. In each training some rows get a class more: their AUM is that of a wrong label.

Letters: N rows, K classes, F folds, R trainings.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from rayclean.catalog.noise import threshold_samples
from rayclean.config import TrainSection
from rayclean.errors import RaycleanError
from rayclean.schema import Array
from rayclean.scores.aum import aum_threshold
from rayclean.train.augment import augment_float
from rayclean.train.forward import Forward, ForwardSettings
from rayclean.train.losses import cross_entropy, mixup, mixup_loss
from rayclean.train.models import Network
from rayclean.train.optimizer import learning_rate, make_optimizer, set_rate
from rayclean.train.plan import batch_bounds, role_seed, steps_of
from rayclean.train.precision import autocast
from rayclean.train.spec import NetworkSpec

FOLDS = 5
THRESHOLD_PARTS = 2

Arrays = dict[str, Array]
Watch = Callable[[torch.Tensor, torch.Tensor, Array], object]  # logits, labels and rows of a training batch


@dataclass(frozen=True)
class Setup:
    """Rows, and how networks are trained on them.

    Attributes:
        inputs: (N, size, size, 3) float32, normalised once for all trainings.
        labels: (N,) int64 given labels.
        draws: (N,) uint64 identities for seeded draws.
        spec: the network; its number of classes is K.
        train: optimizer, schedule, batches and augmentation; its loss is each peer's own.
        weights: that networks start from; None for random ones.
        precision: of training.
        forward: how networks predict.
        seed: of all draws.
        data: a mark of the rows and their labels.
    """

    inputs: torch.Tensor
    labels: Array
    draws: Array
    spec: NetworkSpec
    train: TrainSection
    weights: str | None
    precision: str
    forward: ForwardSettings
    seed: int
    data: str


def peer_package(name: str) -> Any:
    """A peer's module.

    Raises:
        RaycleanError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        raise RaycleanError(f"{name} cannot be imported ({e}); install the peers: pip install -e .[peers]") from e


def train_network(
    setup: Setup,
    loss: str,
    epochs: int,
    labels: Array,
    rows: Array,
    num_classes: int,
    seed: int,
    watch: Watch | None = None,
) -> Network:
    """Trains a new network.

    Args:
        setup: the images and how to train.
        loss: `ce` or `mixup`.
        epochs: over `rows`.
        labels: (N,) int64.
        rows: what to train on; other rows' labels are not read.
        num_classes: of the network.
        seed: of weights, order, augmentation and MixUp.
        watch: called after each step; under MixUp a row's logits are not its own.
    """
    train, device = setup.train.model_copy(update={"loss": loss, "epochs": epochs}), setup.inputs.device
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout
    network = replace(setup.spec, num_classes=num_classes).build(seed, setup.weights)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, train)
    steps = steps_of(len(rows), train.batch_size)
    for epoch in range(epochs):
        order = rng.permutation(rows)
        for step, (start, stop) in enumerate(batch_bounds(len(rows), steps)):
            here = order[start:stop]
            set_rate(optimizer, learning_rate(train, (epoch + step / steps) / epochs))
            images = augment_float(_images(setup, here), train.augment, generator)
            targets = torch.from_numpy(labels[here]).to(device)
            optimizer.zero_grad(set_to_none=True)
            with autocast(setup.precision, device.type):
                if loss == "mixup":
                    mixed, own, partners, lam = mixup(images, targets, train.mixup_alpha, generator)
                    logits = network(mixed)
                    value = mixup_loss(logits, own, partners, lam)
                else:
                    logits = network(images)
                    value = cross_entropy(logits, targets)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if watch is not None:
                watch(logits.detach(), targets, here)
    return network


def _images(setup: Setup, rows: Array) -> torch.Tensor:
    """(R, 3, size, size) in channels_last memory."""
    return setup.inputs[torch.from_numpy(rows)].permute(0, 3, 1, 2)


def held_out_rows(labels: Array, seed: int) -> list[Array]:
    """The rows that each of F folds holds out, each with nearly the same share of every class; all rows once."""
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=role_seed(seed, "peers-folds") % 2**32)
    return [held for _, held in splitter.split(labels, labels)]


def predict_held_out(setup: Setup, loss: str, epochs: int, held: Array, name: str) -> Arrays:
    """Logits of rows, by a network that is trained on all others.

    Args:
        setup: all rows.
        loss: `ce` or `mixup`.
        epochs: over the other rows.
        held: rows to predict.
        name: of the training; its draws come from it.

    Returns:
        rows: (H,) `held`. logits: (H, K) float32.
    """
    others = np.setdiff1d(np.arange(len(setup.labels)), held)
    seed, num_classes = role_seed(setup.seed, name), setup.spec.num_classes
    network = train_network(setup, loss, epochs, setup.labels, others, num_classes, seed)
    forward = Forward(network, setup.spec, setup.forward)
    return {"rows": held, "logits": forward.logits(_images(setup, held)).float().cpu().numpy()}


def gathered(parts: Sequence[Arrays]) -> Array:
    """(N, K) float64 logits of all rows, from those of the folds."""
    rows, logits = (np.concatenate([part[key] for part in parts]) for key in ("rows", "logits"))
    return np.asarray(logits.astype(np.float64)[np.argsort(rows)])


def train_thresholded(setup: Setup, epochs: int, part: int, name: str) -> Arrays:
    """AUM of all rows by the package `aum`, in a cross-entropy training with threshold samples.

    Args:
        setup: all rows.
        epochs: over all rows.
        part: which rows are threshold samples, about N / (K + 1); others in each part.
        name: of the training; its draws come from it.

    Returns:
        aum: (N,) float64, of threshold samples for their class K. drawn: (N,) bool, which are threshold samples.
    """
    num_classes = setup.spec.num_classes
    drawn = threshold_samples(setup.draws, num_classes, part, setup.seed)
    labels = np.where(drawn, num_classes, setup.labels)
    calculator = peer_package("aum").AUMCalculator("")  # a folder for `finalize`, which is not called
    aum = np.full(len(labels), np.nan)

    def watch(logits: torch.Tensor, targets: torch.Tensor, rows: Array) -> None:
        for row, record in calculator.update(logits.float(), targets, rows.tolist()).items():
            aum[row] = record.aum

    seed = role_seed(setup.seed, name)
    train_network(setup, "ce", epochs, labels, np.arange(len(labels)), num_classes + 1, seed, watch)
    return {"aum": aum, "drawn": drawn}


def threshold_excess(aum: Array, drawn: Array) -> Array:
    """How far each row's AUM is above the 99th percentile of the threshold samples' in the same training.

    The mean over the trainings in which the row has its own label [our choice: the authors flag a row that is below
    in each of them, and rank none].

    Args:
        aum: (R, N).
        drawn: (R, N) bool, threshold samples.

    Returns:
        (N,) float64, higher = cleaner; NaN for a row that is a threshold sample in all.
    """
    thresholds = np.array([aum_threshold(each[where]) for each, where in zip(aum, drawn, strict=True)])
    above = np.where(drawn, 0.0, aum - thresholds[:, None])
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(above.sum(axis=0) / (~drawn).sum(axis=0))


@dataclass(frozen=True)
class Part:
    """One training of a peer.

    Attributes:
        name: of the training.
        epochs: over all N rows.
        predictions: forwards beside training, per row.
        compute: does it.
    """

    name: str
    epochs: float
    predictions: float
    compute: Callable[[], Arrays]


def thresholded_parts(setup: Setup, peer: str, epochs: int) -> list[Part]:
    """The trainings with threshold samples."""
    names = [f"{peer}-{part + 1}" for part in range(THRESHOLD_PARTS)]
    return [Part(name, epochs, 0, partial(train_thresholded, setup, epochs, i, name)) for i, name in enumerate(names)]


def fold_parts(setup: Setup, peer: str, loss: str, epochs: int) -> list[Part]:
    """The trainings on all folds but one."""
    parts = []
    for fold, held in enumerate(held_out_rows(setup.labels, setup.seed), start=1):
        name, share = f"{peer}-fold{fold}", len(held) / len(setup.labels)
        compute = partial(predict_held_out, setup, loss, epochs, held, name)
        parts.append(Part(name, epochs * (1 - share), share, compute))
    return parts
