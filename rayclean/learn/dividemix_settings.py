"""How DivideMix trains, and what it reads: its settings and the source of images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from pydantic import ValidationError

from rayclean.config import DivideMixSection, InnSection, IofmSection, TrainSection
from rayclean.config.explain import explain
from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.train.forward import ForwardSettings

Starts = tuple[Array, Array]  # (N,) scores each of two networks


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


def check_scores(section: DivideMixSection, source: Source, given: Array | None, starts: Starts | None) -> None:
    """Refuses scores that are missing, of another number of rows, or without a value.

    Raises:
        ConfigError: with what is expected.
    """
    if section.score == "joint" and given is None:
        raise ConfigError(
            "learn.dividemix.score is joint, but no label_score is given; score the rows first, or take loss"
        )
    if section.start == "scores" and section.score != "joint" and starts is None:
        raise ConfigError(
            f"learn.dividemix.start is scores, but no {section.score} of two networks is given; train them, or take "
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
    """How DivideMix trains: its section, and what it takes from others.

    Attributes:
        section: `learn.dividemix`.
        walks: whose L and H the paths of the scores `iofm` and `inn` have.
        train: optimizer, momentum, decay and augmentation; epochs, rates and batches are the section's.
        seed: of all draws.
        precision: of the training passes, resolved.
        forward: how the networks are run when they score; they live on its device.
        threads: of torch.
    """

    section: DivideMixSection
    walks: IofmSection | InnSection
    train: TrainSection
    seed: int
    precision: str
    forward: ForwardSettings
    threads: int


def divided_train(section: DivideMixSection, train: TrainSection) -> TrainSection:
    """How DivideMix's networks are trained: as others here, but for what its section says.

    Raises:
        ConfigError: the section's rate is not one for the optimizer.
    """
    same = {name: getattr(section, name) for name in ("epochs", "lr", "schedule", "decay", "batch_size")}
    milestones = section.milestones if section.schedule == "step" else []
    try:
        return train.changed(same, {"milestones": milestones})
    except ValidationError as e:
        raise ConfigError("; ".join(f"learn.dividemix.{explain(error, TrainSection)}" for error in e.errors())) from e
