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
    """`--method retrain`: a new network on what the table thinks is right."""

    by: Literal["cut", "weight", "predicted", "posterior"] = "cut"
    """`cut` keeps rows with a `label_score` of at least `cut`; `weight` keeps all, each loss times `label_score`;
    `predicted` also keeps rows below `cut` whose prediction is sure, with that label; `posterior` learns of every row
    each class's share of it, by the joint model."""
    cut: Share | None = None
    """Of `cut` and `predicted`; without it `merge.threshold`."""
    sure: Share = 0.9
    """Of `predicted`: the `predicted_score` from which a label is replaced."""


class RankSection(Section):
    """`--method influential_rank`: post-training in rounds; the rate is `train.lr` again in each."""

    rounds: Positive = 2
    """Rounds of removal and training; one that does not help is undone."""
    epochs: Positive = 20
    """Epochs per round."""
    milestones: list[Positive] = Field(default=[5, 15])
    """Epochs of a round after which the rate falls to a tenth."""
    keep: Share = 0.8
    """S: the softmax that a relabelled row needs to be kept."""
    removal: Literal["influence", "small_loss", "nothing"] = "influence"
    """What goes: by `influence` (the method), as many rows of the largest loss, or `nothing` (longer training); the
    last two are the paper's comparisons."""


class DivideMixSection(Section):
    """`--method dividemix`: two networks, each on what the other one thinks; defaults as the authors have on CIFAR-10.

    L and H are those of `iofm` or `inn`; optimizer, momentum, weight decay and augmentation `train`'s.
    """

    score: DivideScore = "loss"
    """What splits the rows: the network's losses (DivideMix), its `iofm` or `inn`, or the table (`joint`)."""
    mixture: Literal["auto", "gauss", "beta", "none"] = "auto"
    """What turns the score into P(clean): by default `gauss` for losses, `beta` for `iofm` and `inn`, nothing for
    `joint`, which is a probability."""
    start: Literal["warmup", "scores"] = "warmup"
    """`warmup`: cross-entropy on all rows first; `scores`: MixMatch on splits by the scores of two networks that were
    trained before (INN's algorithm D.1, step 1)."""
    warmup: Annotated[int, Field(ge=0)] = 10
    """Epochs of that start."""
    epochs: Positive = 300
    """Epochs in all; the authors' loop has one more."""
    lr: PositiveNumber = 0.02
    """The learning rate at the start."""
    schedule: Literal["step", "cosine"] = "step"
    """How the rate falls: by `decay` after each of the `milestones`, or per step to 0."""
    milestones: list[Positive] = Field(default=[150])
    """With `schedule: step`: epochs after which the rate falls."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With `schedule: step`: what the rate is multiplied by."""
    batch_size: Positive = 64
    """B: labelled rows per step and worker; as many unlabelled ones, 2 B in the warm-up."""
    alpha: PositiveNumber = 4.0
    """Of the Beta distribution that MixMatch's weights are drawn from."""
    temperature: PositiveNumber = 0.5
    """T: sharpens refined and guessed labels; lower is sharper."""
    p_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """P(clean) above which a row keeps its label."""
    lambda_u: NonNegative = 25.0
    """Weight of the unlabelled loss. More where more labels are wrong; the authors have 0 to 150."""
    ramp: PositiveNumber = 16.0
    """Epochs over which `lambda_u` grows to its value."""
    use_unlabelled: bool = True
    """`false`, with `lambda_u: 0`, trains on labelled rows alone: half the work, as the authors do on Clothing1M and
    WebVision."""
    penalty: Literal["none", "entropy"] = "none"
    """`entropy` adds the negative entropy to the warm-up's loss, for asymmetric noise and Clothing1M."""
    rescore_every: Positive = 1
    """Epochs from one split to the next; INN has 9."""
    history: Positive = 1
    """Scorings whose normalised scores are averaged; the authors have 5 at 90% noise."""
    sample_rows: Annotated[int, Field(ge=0)] = 0
    """Rows that each network draws afresh for a split, evenly over the given labels, twice as many in the warm-up; 0
    for all. The authors have 32,000 on Clothing1M."""

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
    """Training with the result; read by `rayclean learn` alone.

    On features the networks are one linear layer, trained as heads are: of `train` the same fields count, of
    `learn.train` all but `augment`. Without a `weight_decay` there each lesson has that of `train.weight_decays` by
    which heads tell the verified labels best (`influence.validation`), else the lesson's own, out of fold.
    """

    test: str | list[str] | None = None
    """Shards whose labels are right: accuracy is measured on them, nothing else is. Rows that `influence.validation`
    takes of the same shards are left out."""
    test_label: str | None = None
    """Where their labels are, as `data.label` says it (the default)."""
    from_: str = Field(default="plain", alias="from")
    """What Influential Rank and RoG start from: `plain` (everything is trained first, as `train` says), a role of the
    run, whose network and settings are then taken, or a path to weights."""
    train: dict[str, Any] = Field(default={})
    """Fields of `train` that the networks trained here have otherwise: `{epochs: 100}`."""
    retrain: RetrainSection = RetrainSection()
    """Of `--method retrain`."""
    rank: RankSection = RankSection()
    """Of `--method influential_rank`."""
    dividemix: DivideMixSection = DivideMixSection()
    """Of `--method dividemix`."""
