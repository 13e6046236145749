"""How DivideMix trains, and what it reads: its settings and the source of images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from rayclean.config import TrainSection
from rayclean.config.train_section import ADAMW_MAX_RATE, Augment
from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.train.forward import ForwardSettings

Starts = tuple[Array, Array]  # (N,) scores each of two networks
# What the papers fit: DivideMix to losses, INN to its score; label_score is a probability already.
FOR_ADAMW = "train.optimizer is adamw, which moves every weight by about the rate at each step; 0.0001 is usual"
MIXTURES = {"loss": "gauss", "iofm": "beta", "inn": "beta", "joint": "none"}


class Source(Protocol):
    """Images and labels of one rank."""

    @property
    def labels(self) -> Array:
        """(N,) integers, the given labels of all rows."""
        ...

    @property
    def digests(self) -> Array:
        """(N, 2) uint64; equal means equal pixels."""
        ...

    @property
    def draws(self) -> Array:
        """(N,) uint64 identities for seeded draws."""
        ...

    def images(self, rows: Array) -> Array:
        """(R, S, S, 3) uint8 images of any rows."""
        ...

    def batches(self, rows: Array, epoch: int, name: str, batch_size: int) -> Iterator[tuple[Array, torch.Tensor]]:
        """One shuffled pass over this rank's share of some rows, equally many batches on every rank.

        Args:
            rows: (R,) distinct rows, ascending.
            epoch: counted from 1.
            name: of the pass: two of an epoch have two names, and two orders.
            batch_size: at most so many a batch.

        A pass over unlabelled rows is left before its end where there are more of them than labelled ones: what reads
        ahead must then end too.

        Yields:
            (B,) rows and their (B, S, S, 3) uint8 images.
        """
        ...

    def num_batches(self, rows: Array, batch_size: int) -> int:
        """Batches that `batches` gives a rank."""
        ...


def check_scores(settings: DivideMixSettings, source: Source, given: Array | None, starts: Starts | None) -> None:
    """Refuses scores that are missing, of another number of rows, or without a value.

    Raises:
        ConfigError: with what is expected.
    """
    if settings.score == "joint" and given is None:
        raise ConfigError(
            "learn.dividemix.score is joint, but no label_score is given; score the rows first, or take loss"
        )
    if settings.start == "scores" and settings.score != "joint" and starts is None:
        raise ConfigError(
            f"learn.dividemix.start is scores, but no {settings.score} of two networks is given; train them, or take "
            "warmup"
        )
    num_rows = len(source.labels)
    if num_rows < 2:
        raise ConfigError(f"learn.dividemix: found {num_rows} rows, expected 2 or more")
    for name, scores in (("given_scores", given), *(("starts", each) for each in starts or ())):
        if scores is not None and (scores.shape != (num_rows,) or not np.isfinite(scores).all()):
            found = f"{scores.shape} with {int((~np.isfinite(scores)).sum())} that are not finite"
            raise ConfigError(f"learn.dividemix: {name}: found {found}, expected a number for each of {num_rows} rows")


@dataclass(frozen=True)
class DivideMixSettings:
    """All hyper-parameters; by default those of the authors for CIFAR-10.

    Attributes:
        epochs: all, warm-up included. The authors' loop counts from 0 to 300 and so has one more.
        warmup: epochs before the first split by the networks' own scores.
        start: `warmup`: cross-entropy on all rows first. `scores`: the first `warmup` epochs are MixMatch on the splits
            that given scores make, labels as given, guesses by the network alone [INN, algorithm D.1, step 1].
        score: what splits the rows: `loss`, `iofm`, `inn`, or `joint` for a `label_score` that is given.
        mixture: `gauss`, `beta`, `none` for scores that are P(clean) already; None for the score's own.
        rescore_every: epochs from one split to the next; INN has 9.
        history: scorings whose normalised scores are averaged; the authors have 5 at 90% noise.
        num: L of `iofm` and `inn`.
        steps: H of `iofm` and `inn`; the papers have 3 and 10.
        sample_rows: rows that each network draws afresh for a split, as evenly over the given labels as there are
            rows; the warm-up has twice as many. 0 for all rows. The authors have 32,000 on Clothing1M.
        batch_size: B, labelled rows of a step and rank; as many unlabelled ones, and 2 B in the warm-up.
        lr: rate at the start.
        optimizer: `sgd`, without Nesterov's momentum, as the authors have it, or `adamw`.
        momentum: see `TrainSection`, as of the decay.
        weight_decay: see there.
        schedule: `step`, `cosine` or `constant`, as in `train`.
        milestones: epochs after which `step` multiplies the rate by `decay`.
        decay: see `milestones`.
        alpha: of MixUp's Beta distribution.
        temperature: T.
        p_threshold: P(clean) above which a row keeps its label.
        lambda_u: weight of the unlabelled loss.
        ramp: epochs over which it grows.
        use_unlabelled: whether the mixtures of unlabelled rows are trained on. False for Clothing1M and WebVision,
            where the authors mix and use the first 2 B rows alone, half the work; only without `lambda_u`.
        penalty: of the warm-up: `entropy` adds the negative entropy, for asymmetric noise and Clothing1M.
        augment: of each view.
        seed: of all draws.
        precision: of the training passes, resolved.
        score_precision: of the scoring passes, resolved.
        score_batch_size: images of a scoring pass.
        device: where the networks live.
        threads: of torch.
    """

    epochs: int = 300
    warmup: int = 10
    start: Literal["warmup", "scores"] = "warmup"
    score: Literal["loss", "iofm", "inn", "joint"] = "loss"
    mixture: Literal["gauss", "beta", "none"] | None = None
    rescore_every: int = 1
    history: int = 1
    num: int = 10
    steps: int = 3
    sample_rows: int = 0
    batch_size: int = 64
    lr: float = 0.02
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[int, ...] = (150,)
    decay: float = 0.1
    alpha: float = 4.0
    temperature: float = 0.5
    p_threshold: float = 0.5
    lambda_u: float = 25.0
    ramp: float = 16.0
    use_unlabelled: bool = True
    penalty: Literal["none", "entropy"] = "none"
    augment: Augment = "crop_flip"
    seed: int = 0
    precision: str = "float32"
    score_precision: str = "float32"
    score_batch_size: int = 256
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, valid, expected in self._rules():
            if not valid:
                raise ConfigError(f"learn.dividemix.{name}: found {getattr(self, name)}, expected {expected}")

    def _rules(self) -> tuple[tuple[str, bool, str], ...]:
        """What each field must be: name, whether it is so, and how it should be."""
        whole = ("epochs", "rescore_every", "history", "num", "batch_size", "score_batch_size", "threads")
        over_zero = ("lr", "alpha", "temperature")
        from_zero = ("warmup", "sample_rows", "weight_decay", "lambda_u", "ramp")
        kinds = {"score": tuple(MIXTURES), "mixture": (None, "gauss", "beta", "none"), "start": ("warmup", "scores")}
        milestones = list(self.milestones)
        steps_fit = bool(milestones) and milestones == sorted(set(milestones)) and milestones[0] > 0
        return (
            *((name, getattr(self, name) >= 1, "1 or more") for name in whole),
            *((name, getattr(self, name) > 0, "more than 0") for name in over_zero),
            *((name, getattr(self, name) >= 0, "0 or more") for name in from_zero),
            *((name, getattr(self, name) in valid, f"one of {valid}") for name, valid in kinds.items()),
            ("penalty", self.penalty in ("none", "entropy"), "'none' or 'entropy'"),
            ("momentum", 0 <= self.momentum < 1, "0 or more and less than 1"),
            ("p_threshold", 0 <= self.p_threshold < 1, "0 or more and less than 1"),
            ("steps", self.steps >= 2, "2 or more: one step has no point inside a path"),
            ("decay", 0 < self.decay < 1, "more than 0 and less than 1"),
            ("milestones", steps_fit or self.schedule != "step", "epochs that grow, such as (150,), for schedule step"),
            ("mixture", (self.score, self.mixture) != ("loss", "none"), "gauss or beta: a loss is no probability"),
            ("lr", self.optimizer == "sgd" or self.lr <= ADAMW_MAX_RATE, f"at most {ADAMW_MAX_RATE}: {FOR_ADAMW}"),
            ("history", self.history == 1 or not self.sample_rows, "1 with sample_rows: each split has other rows"),
            ("use_unlabelled", self.use_unlabelled or not self.lambda_u, "true, or lambda_u=0: it weighs their loss"),
        )

    @property
    def mixture_kind(self) -> str:
        """The mixture, that of the score where none is named."""
        return self.mixture or MIXTURES[self.score]

    @property
    def any_label(self) -> bool:
        """Whether neighbours may have any label, as INN's."""
        return self.score == "inn"

    @property
    def forward(self) -> ForwardSettings:
        """How the networks are run when they score."""
        return ForwardSettings(self.device, self.score_precision, self.score_batch_size)

    @property
    def rates(self) -> TrainSection:
        """What the optimizer and `learning_rate` read."""
        return TrainSection(
            epochs=self.epochs,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            milestones=list(self.milestones) if self.schedule == "step" else [],
            decay=self.decay,
        )

    def is_warm_up(self, epoch: int) -> bool:
        """Whether an epoch, counted from 1, is one of cross-entropy on all rows."""
        return self.start == "warmup" and epoch <= self.warmup

    def is_given(self, epoch: int) -> bool:
        """Whether an epoch is one of MixMatch on splits by given scores."""
        return self.start == "scores" and epoch <= self.warmup

    def splits(self, epoch: int) -> bool:
        """Whether rows are split anew before an epoch."""
        if self.is_warm_up(epoch):
            return False
        if self.is_given(epoch):
            return epoch == 1 or self.sample_rows > 0
        return (epoch - 1 - self.warmup) % self.rescore_every == 0

    def epochs_since(self, epoch: int, progress: float) -> float:
        """Epochs since there have been unlabelled rows, at a share of an epoch in [0, 1)."""
        return epoch - 1 + progress - (self.warmup if self.start == "warmup" else 0)
