"""The section `learn`: training with the result. It is read by `rayclean learn` alone; scores never depend on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rayclean.config.sections import Positive, PositiveNumber, Section, Share

DivideScore = Literal["loss", "iofm", "inn", "joint"]
NonNegative = Annotated[float, Field(ge=0)]
# DivideMix's defaults on features, where one layer learns in few epochs.
DIVIDEMIX_ON_FEATURES = {"epochs": 20, "warmup": 5, "schedule": "cosine"}
# What the papers fit: DivideMix to losses, INN to its score; label_score is a probability already.
MIXTURES = {"loss": "gauss", "iofm": "beta", "inn": "beta", "joint": "none"}


class RetrainSection(Section):
    """A new network on what the table thinks is right.

    `by`: `cut` keeps rows with `label_score` of at least `cut` (default `merge.threshold`); `weight` keeps all, each
    loss times `label_score`; `predicted` relabels where `predicted_score` is at least `sure`, and cuts the rest;
    `posterior` learns of every row each class's share of it, by the joint model.
    """

    by: Literal["cut", "weight", "predicted", "posterior"] = "cut"
    cut: Share | None = None
    sure: Share = 0.9


class RankSection(Section):
    """Influential Rank's post-training; the rate is `train.lr` again, falling after each of `milestones`.

    `keep`: S, the softmax that a relabelled sample needs. `removal`: `influence` (the method), `small_loss` (as many
    rows, those of the largest loss) or `nothing` (longer training), the paper's comparisons.
    """

    rounds: Positive = 2
    epochs: Positive = 20
    milestones: list[Positive] = Field(default=[5, 15])
    keep: Share = 0.8
    removal: Literal["influence", "small_loss", "nothing"] = "influence"


class DivideMixSection(Section):
    """DivideMix, its co-divide by losses or by other scores; hyper-parameters as the authors have them on CIFAR-10.

    `mixture`: gauss for losses and beta for others by default. `warmup`: epochs of cross-entropy on all rows; with
    `start: scores` of MixMatch on the splits that the scores of two networks trained before make, labels as given,
    guesses by the network alone (INN's algorithm D.1, step 1). `epochs`: all; the authors' loop has one more.
    `batch_size`: B, labelled rows of a step and rank; as many unlabelled ones, 2 B in the warm-up. `p_threshold`:
    P(clean) above which a row keeps its label. `ramp`: epochs over which `lambda_u`, the weight of the unlabelled loss,
    grows. `penalty: entropy` adds the negative entropy to the warm-up, for asymmetric noise and Clothing1M.

    `use_unlabelled: false` with `lambda_u: 0` trains on labelled rows alone, half the work, as the authors do on
    Clothing1M and WebVision. `rescore_every`: epochs from one co-divide to the next; INN has 9. `history`: scorings
    whose normalised scores are averaged; the authors have 5 at 90% noise. `sample_rows`: rows that each network draws
    afresh for a co-divide, evenly over the given labels, twice as many in the warm-up; 0 for all. The authors have
    32,000 on Clothing1M. L and H are those of `iofm` or `inn`; optimizer, momentum, decay and augmentation `train`'s.
    """

    score: DivideScore = "loss"
    mixture: Literal["auto", "gauss", "beta", "none"] = "auto"
    start: Literal["warmup", "scores"] = "warmup"
    warmup: Annotated[int, Field(ge=0)] = 10
    epochs: Positive = 300
    lr: PositiveNumber = 0.02
    schedule: Literal["step", "cosine"] = "step"
    milestones: list[Positive] = Field(default=[150])
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1
    batch_size: Positive = 64
    alpha: PositiveNumber = 4.0
    temperature: PositiveNumber = 0.5
    p_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    lambda_u: NonNegative = 25.0
    ramp: PositiveNumber = 16.0
    use_unlabelled: bool = True
    penalty: Literal["none", "entropy"] = "none"
    rescore_every: Positive = 1
    history: Positive = 1
    sample_rows: Annotated[int, Field(ge=0)] = 0

    @field_validator("mixture")
    @classmethod
    def _check_mixture(cls, mixture: str, info: ValidationInfo) -> str:
        if mixture == "none" and info.data.get("score") == "loss":
            raise ValueError("gauss or beta expected for score loss: a loss is no probability")
        return mixture

    @field_validator("milestones")
    @classmethod
    def _check_milestones(cls, milestones: list[int], info: ValidationInfo) -> list[int]:
        if info.data.get("schedule") == "step" and (not milestones or milestones != sorted(set(milestones))):
            raise ValueError("epochs that grow expected for schedule step, such as [150]")
        return milestones

    @field_validator("use_unlabelled")
    @classmethod
    def _check_use_unlabelled(cls, use_unlabelled: bool, info: ValidationInfo) -> bool:
        if not use_unlabelled and info.data.get("lambda_u"):
            raise ValueError("true expected, or lambda_u=0, since it weighs their loss")
        return use_unlabelled

    @field_validator("sample_rows")
    @classmethod
    def _check_sample_rows(cls, sample_rows: int, info: ValidationInfo) -> int:
        if sample_rows and info.data.get("history", 1) > 1:
            raise ValueError("0 expected with a history, or history=1: each split is of other rows")
        return sample_rows

    @property
    def mixture_kind(self) -> str:
        """The mixture, that of the score where none is named."""
        return MIXTURES[self.score] if self.mixture == "auto" else self.mixture

    @property
    def any_label(self) -> bool:
        """Whether neighbours may have any label, as INN's."""
        return self.score == "inn"

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


class LearnSection(Section):
    """Training with the result.

    `test`: shards whose labels (`test_label`) are right; accuracy is measured on them and nothing else is. Rows that
    `influence.validation` takes of the same shards are left out. `from`: what Influential Rank and RoG start from:
    `plain` (everything trained first, as `train` says), a role of the run, whose network and settings are then taken,
    or a path to weights. `train`: fields of `train` that the networks trained here have otherwise.

    On features the networks are one linear layer, trained as heads are: of `train` the same fields count, of
    `learn.train` all but `augment`. Without a `weight_decay` there each lesson has that of `train.weight_decays` by
    which heads tell the verified labels best (`influence.validation`), else the lesson's own, out of fold.
    """

    test: str | list[str] | None = None
    test_label: str | None = None
    from_: str = Field(default="plain", alias="from")
    train: dict[str, Any] = Field(default={})
    retrain: RetrainSection = RetrainSection()
    rank: RankSection = RankSection()
    dividemix: DivideMixSection = DivideMixSection()
