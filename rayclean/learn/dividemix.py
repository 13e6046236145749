"""DivideMix (Li et al., ICLR 2020): two networks, each trained on what the other one thinks of the labels.

After a warm-up on all rows, each epoch splits the rows by the scores of each network (`divide`); each network is then
trained on the split of the other one: rows that are likely clean keep a refined label, the others get the label that
both networks guess (`mixmatch`). What splits the rows is the loss as in the paper, IOFM or INN in its place (IOFM's
appendix; INN, algorithm D.1), or a `label_score` that is given.

As in the authors' code: the network that is trained stays in training mode for its guesses, so that BatchNorm uses
each batch of views by itself and its running statistics see unmixed images too; the other one is in evaluation mode,
so its two views go through it together. Both are divided by before either is trained. A step thus costs, in images of
the batch size B, 4 B forwards of the trained network without gradients, 2 B of the other one, and 4 B with gradients.
A prediction for a new image is the argmax of the sum of both networks' logits.

On several ranks each has B rows a step: guesses go through the bare network, the one pass with gradients through DDP.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from rayclean.errors import UnitError
from rayclean.learn.divide import clean_posterior, cleanness, split_rows
from rayclean.learn.dividemix_settings import DivideMixSettings, Source, Starts, check_scores
from rayclean.learn.learner import Learner, make_learner
from rayclean.learn.mixmatch import co_guess, co_refine, draw_mixing, mix, mixmatch_loss, negative_entropy, ramped
from rayclean.learn.rescoring import NearLists, rescore
from rayclean.schema import Array
from rayclean.storage.draws import drawn_of_each_class
from rayclean.train.augment import augment_float, augment_uint8
from rayclean.train.loop import Rank, State, memory_as_it_comes, same_buffers
from rayclean.train.models import Network
from rayclean.train.optimizer import learning_rate, set_rate
from rayclean.train.plan import epoch_seed
from rayclean.train.precision import autocast
from rayclean.train.spec import NetworkSpec

Networks = tuple[Network, Network]
Facts = dict[str, float | list[float]]
StepLosses = dict[str, torch.Tensor]


def dividemix_epochs(
    settings: DivideMixSettings,
    spec: NetworkSpec,
    networks: Networks,
    source: Source,
    rank: Rank,
    state: State | None = None,
    given_scores: Array | None = None,
    starts: Starts | None = None,
) -> Iterator[tuple[int, Networks, Facts, State]]:
    """Trains from `state`, or from the start, and hands over after each epoch.

    Args:
        settings: how.
        spec: what the networks are.
        networks: before the first step, drawn from different seeds.
        source: labels and images of this rank.
        rank: this process.
        state: what an earlier start handed over last; None at the start.
        given_scores: (N,) `label_score`, for score `joint`.
        starts: (N,) scores each of two networks that were trained before, for start `scores`.

    Yields:
        The epoch from 1; the bare networks with the buffers of rank 0; facts; the state to go on from, which
        `torch.load(weights_only=True)` reads and whose tensors are the live ones: save it before the next epoch.
        Facts are lists of two, an entry a network, but for `lambda_u` at the end of the epoch. `labelled_share`,
        `clean_posterior`, `clean_mean`, `noisy_mean` and `by_order` are of the split that a network made, for the
        other one to train on; `loss`, or `loss_labelled`, `loss_unlabelled` and `penalty`, are what a network was
        trained with, means over this rank's steps.

    Raises:
        ConfigError: scores that the settings want are missing, or do not fit.
        UnitError: training diverged.
    """
    check_scores(settings.section, source, given_scores, starts)
    torch.set_num_threads(settings.threads)
    device = settings.forward.device
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    learners = [make_learner(settings.train, network, device, index, rank) for index, network in enumerate(networks)]
    first = 1
    if state is not None:
        for learner, each in zip(learners, state["learners"], strict=True):
            learner.load(each)
        first = state["epoch"] + 1
    training = _Training(settings, spec, source, rank, given_scores, starts, NearLists(spec.is_linear))
    with memory_as_it_comes():
        for epoch in range(first, settings.section.epochs + 1):
            facts = training.epoch(learners[0], learners[1], epoch)
            after = {"learners": [learner.state() for learner in learners], "epoch": epoch}
            yield epoch, (learners[0].network, learners[1].network), facts, after


@dataclass(frozen=True)
class _Training:
    """What all epochs share; nothing in it changes but lists of neighbours, which are found when they are wanted."""

    settings: DivideMixSettings
    spec: NetworkSpec
    source: Source
    rank: Rank
    given_scores: Array | None
    starts: Starts | None
    near: NearLists

    def epoch(self, one: Learner, two: Learner, epoch: int) -> Facts:
        """Splits the rows where it is time, then trains one network after the other."""
        section, both = self.settings.section, (one, two)
        if section.splits(epoch):
            for learner in both:
                self._split(learner, epoch)
        means: list[dict[str, float]] = []
        for learner, other in ((one, two), (two, one)):
            warm_up = section.is_warm_up(epoch)
            steps = self._warm_up(learner, epoch) if warm_up else self._mixmatch(learner, other, epoch)
            means.append(self._take_steps(learner, steps, epoch))
        for learner in both:
            same_buffers(learner.network, self.rank)
        facts: Facts = {name: [each[name] for each in means] for name in means[0]}
        if one.split is not None and two.split is not None:
            for name in one.split.facts:
                facts[name] = [one.split.facts[name], two.split.facts[name]]
            facts["lambda_u"] = ramped(section.lambda_u, section.epochs_since(epoch, 1.0), section.ramp)
        return facts

    def _rows(self, learner: Learner, epoch: int, share: int = 1) -> Array:
        """Rows that a network draws for an epoch, ascending; all where none are drawn."""
        source, wanted = self.source, share * self.settings.section.sample_rows
        if not wanted:
            return np.arange(len(source.labels))
        a_class = -(-wanted // len(np.unique(source.labels)))
        salt = f"dividemix-{learner.index}-{epoch}"
        return drawn_of_each_class(
            self.settings.seed, salt, source.draws, source.labels, lambda rows: min(rows, a_class)
        )

    def _split(self, learner: Learner, epoch: int) -> None:
        """Splits rows by the network's scores, or by those that are given. Rank 0's split is that of all ranks."""
        section, rows = self.settings.section, self._rows(learner, epoch)
        if self.given_scores is not None and section.score == "joint":
            scores = self.given_scores[rows]
        elif section.is_given(epoch) and self.starts is not None:
            scores = self.starts[learner.index][rows]
        else:
            scores = rescore(self.settings, self.spec, learner.network, self.source, rows, self.rank, self.near)
        values = cleanness(scores, section.mixture_kind, section.score == "loss")
        if section.history > 1 and not section.is_given(epoch):
            learner.history = [*learner.history, values][-section.history :]
            values = np.mean(learner.history, axis=0)
        clean = clean_posterior(values, section.mixture_kind)
        split = split_rows(values, clean, section.p_threshold, section.batch_size * self.rank.count)
        # Ranks of different processors may differ in the last bit, and then in the number of steps: they would hang.
        for part in (split.clean, split.is_labelled):
            self._as_rank_0(part)
        learner.split, learner.split_epoch = split, epoch

    def _as_rank_0(self, values: Array) -> None:
        """Overwrites values by rank 0's."""
        if self.rank.count > 1:
            tensor = torch.from_numpy(values).to(self.settings.forward.device)
            dist.broadcast(tensor, 0)
            values[:] = tensor.cpu().numpy()

    def _take_steps(self, learner: Learner, steps: Iterator[tuple[float, StepLosses]], epoch: int) -> dict[str, float]:
        """One optimizer step for each of (share of the epoch, parts of the loss); the means of the parts.

        Every draw comes from (seed, epoch, rank, network), so an epoch repeats.
        """
        settings, train = self.settings, self.settings.train
        torch.manual_seed(epoch_seed(settings.seed, epoch, self.rank.index, f"dropout-{learner.index}"))
        learner.wrapped.train()
        totals: dict[str, torch.Tensor] = {}
        num_steps = 0
        for progress, parts in steps:
            set_rate(learner.optimizer, learning_rate(train, (epoch - 1 + progress) / train.epochs))
            learner.optimizer.zero_grad(set_to_none=True)
            parts.pop("total").backward()  # type: ignore[no-untyped-call]
            learner.optimizer.step()
            totals = {name: totals.get(name, 0) + part.detach() for name, part in parts.items()}
            num_steps += 1
        means = {name: float(total) / num_steps for name, total in totals.items()}
        if not all(math.isfinite(mean) for mean in means.values()):
            raise UnitError(
                f"training diverged: the loss is not finite in epoch {epoch}; lower learn.dividemix.lr "
                f"({train.lr:g}) or set train.precision=float32"
            )
        return means

    def _warm_up(self, learner: Learner, epoch: int) -> Iterator[tuple[float, StepLosses]]:
        """Cross-entropy of all rows with their given labels, in batches of 2 B."""
        section, generator = self.settings.section, self._generator(learner, epoch)
        rows, size = self._rows(learner, epoch, share=2), 2 * section.batch_size
        total = self.source.num_batches(rows, size)
        for step, (some, images) in enumerate(self.source.batches(rows, epoch, f"warm-up-{learner.index}", size)):
            (view,) = self._views(images, generator, 1)
            logits = self._forward(learner.wrapped, view)
            loss = F.cross_entropy(logits, self._labels(some))
            if section.penalty == "entropy":
                loss = loss + negative_entropy(logits)
            yield step / total, {"total": loss, "loss": loss}

    def _mixmatch(self, learner: Learner, other: Learner, epoch: int) -> Iterator[tuple[float, StepLosses]]:
        """Steps on the other network's split; as many as it has labelled batches."""
        section, generator, split = self.settings.section, self._generator(learner, epoch), other.split
        if split is None:
            raise ValueError("rows are split before they are trained on")
        rows = self._rows(other, other.split_epoch)
        labelled, rest = rows[split.is_labelled], rows[~split.is_labelled]
        names = [f"{part}-{learner.index}" for part in ("labelled", "unlabelled")]
        total = self.source.num_batches(labelled, section.batch_size)
        batches = self.source.batches(labelled, epoch, names[0], section.batch_size)
        partners = self._again_and_again(rest, epoch, names[1])
        other.network.eval()
        for step, (some, images) in enumerate(batches):
            unlabelled = next(partners)
            views = self._views(images, generator, 2)
            unlabelled_views = [] if unlabelled is None else self._views(unlabelled, generator, 2)
            # In the authors' order: BatchNorm's running statistics depend on it.
            guesses = self._guess(learner, other, unlabelled_views, section.is_given(epoch))
            targets = self._refine(learner, views, some, split.clean[np.searchsorted(rows, some)], epoch)
            mixing = draw_mixing(2 * (len(targets) + len(guesses)), section.alpha, generator)
            num_labelled = 2 * len(targets)
            num_mixed = None if section.use_unlabelled else num_labelled
            inputs = mix(torch.cat([*views, *unlabelled_views]), mixing, num_mixed)
            wanted = mix(torch.cat([targets, targets, guesses, guesses]), mixing, num_mixed)
            parts = mixmatch_loss(self._forward(learner.wrapped, inputs), wanted, num_labelled)
            weight = ramped(section.lambda_u, section.epochs_since(epoch, step / total), section.ramp)
            yield (
                step / total,
                {
                    "total": parts.labelled + weight * parts.unlabelled + parts.penalty,
                    "loss_labelled": parts.labelled,
                    "loss_unlabelled": parts.unlabelled,
                    "penalty": parts.penalty,
                },
            )

    def _again_and_again(self, rows: Array, epoch: int, name: str) -> Iterator[torch.Tensor | None]:
        """Images of passes over rows, one after the other; None again and again where there are no rows."""
        while not len(rows):
            yield None
        for number in itertools.count():
            for _, images in self.source.batches(rows, epoch, f"{name}-{number}", self.settings.section.batch_size):
                yield images

    @torch.no_grad()
    def _guess(self, learner: Learner, other: Learner, views: list[torch.Tensor], alone: bool) -> torch.Tensor:
        """(U, K) targets of unlabelled rows from two views of each; (0, K) where there are none."""
        if not views:
            return torch.zeros((0, self.spec.num_classes), device=self.settings.forward.device)
        predictions = [self._predict(learner, view) for view in views]
        if not alone:
            predictions += self._predict(other, torch.cat(views)).chunk(2)
        return co_guess(torch.stack(predictions), self.settings.section.temperature)

    @torch.no_grad()
    def _refine(
        self, learner: Learner, views: list[torch.Tensor], rows: Array, clean: Array, epoch: int
    ) -> torch.Tensor:
        """(B, K) targets of labelled rows; MixMatch takes labels as they are."""
        labels, section = self._labels(rows), self.settings.section
        if section.is_given(epoch):
            return F.one_hot(labels, self.spec.num_classes).float()
        predictions = torch.stack([self._predict(learner, view) for view in views])
        return co_refine(labels, torch.from_numpy(clean).to(labels.device), predictions, section.temperature)

    def _predict(self, learner: Learner, inputs: torch.Tensor) -> torch.Tensor:
        """(M, K) softmax of the bare network, in whatever mode it is."""
        return torch.softmax(self._forward(learner.network, inputs), dim=1)

    def _forward(self, network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """(M, K) float32 logits."""
        with autocast(self.settings.precision, self.settings.forward.device):
            logits: torch.Tensor = network(inputs.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _views(self, images: torch.Tensor, generator: torch.Generator, number: int) -> list[torch.Tensor]:
        """Augmented normalised images on the device, (B, 3, S, S) each; draws are the CPU's."""
        kind, spec = self.settings.train.augment, self.spec
        views = []
        for _ in range(number):
            pixels = augment_uint8(images, kind, generator).to(self.settings.forward.device)
            views.append(augment_float(spec.inputs(pixels), kind, generator))
        return views

    def _labels(self, rows: Array) -> torch.Tensor:
        return torch.from_numpy(self.source.labels[rows].astype(np.int64)).to(self.settings.forward.device)

    def _generator(self, learner: Learner, epoch: int) -> torch.Generator:
        seed = epoch_seed(self.settings.seed, epoch, self.rank.index, f"batches-{learner.index}")
        return torch.Generator().manual_seed(seed)
