"""The section `learn`: training with the result. It is read by `rayclean learn` alone; scores never depend on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rayclean.config.sections import Positive, PositiveNumber, Section, Share

DivideScore = Literal["loss", "iofm", "inn", "joint"]
NonNegative = Annotated[float, Field(ge=0)]


class RetrainSection(Section):
    """A new network on what the table thinks is right.

    `by`: `cut` keeps rows with `label_score` of at least `cut` (default `merge.threshold`); `weight` keeps all, each
    loss times `label_score`; `predicted` relabels where `predicted_score` is at least `sure`, and cuts the rest.
    """

    by: Literal["cut", "weight", "predicted"] = "cut"
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

    `mixture`: gauss for losses and beta for others by default. `start: scores` begins with the co-divide by the
    scores of two networks trained before (INN's step 1) instead of a warm-up. `warmup`: epochs. `rescore_every`:
    epochs from one co-divide to the next. `history`: epochs whose normalised losses are averaged. `sample_rows`: rows
    drawn afresh each epoch, evenly over the given labels; 0 for all. `use_unlabelled: false` with `lambda_u: 0` trains
    on labelled rows alone, as the authors do on Clothing1M. `num` and `steps` are those of `iofm` or `inn`.
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


class LearnSection(Section):
    """Training with the result.

    `test`: shards whose labels (`test_label`) are right; accuracy is measured on them and nothing else is. Rows that
    `influence.validation` takes of the same shards are left out. `from`: what Influential Rank and RoG start from:
    `plain` (everything trained first, as `train` says), a role of the run, whose network and settings are then taken,
    or a path to weights. `train`: fields of `train` that the networks trained here have otherwise.
    """

    test: str | list[str] | None = None
    test_label: str | None = None
    from_: str = Field(default="plain", alias="from")
    train: dict[str, Any] = Field(default={})
    retrain: RetrainSection = RetrainSection()
    rank: RankSection = RankSection()
    dividemix: DivideMixSection = DivideMixSection()
