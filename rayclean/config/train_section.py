"""The section `train`: how networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rayclean.config.sections import Positive, Section

Augment = Literal["none", "crop_flip", "autoaugment", "random_resized_crop"]
AUGMENT_NAMES: tuple[str, ...] = get_args(Augment)
MAX_EPOCHS = 10**6  # more is a slip of the pen: lists as long as this are made before anything is read
# Defaults of `train.optimizer: adamw`: for fine-tuning in batches of about 128; new weights want a rate of 1e-3 or so.
ADAMW = {"lr": 1e-4, "weight_decay": 0.05}
ADAMW_MAX_RATE = 0.01  # a rate above it was meant for SGD
# Defaults on features. More epochs are taken of few rows and fewer of very many: `HeadSettings.epochs_of`.
HEADS = {"epochs": 12, "batch_size": 256}
OF_OPTIMIZER = ("lr", "momentum", "weight_decay")


class TrainSection(Section):
    """How role `main` is trained; `roles` holds what other roles do otherwise.

    On features (`model.frozen`, `data.features`) what is trained are heads, for each of `weight_decays` one blind to
    each of `folds` parts of the rows and one that sees all. Of the other fields `loss`, `mixup_alpha`, `epochs`,
    `batch_size` and `snapshot_every` count there.
    """

    loss: Literal["mixup", "ce", "ce+ne"] = "mixup"
    """MixUp, cross-entropy, or cross-entropy with negative entropy, for asymmetric noise."""
    mixup_alpha: float = Field(default=1.0, gt=0)
    """Of the Beta distribution that MixUp's weights are drawn from."""
    epochs: int = Field(default=40, ge=0, le=MAX_EPOCHS)
    """Passes over the rows. 0 with `from` or `model.weights`: score with a network that was trained elsewhere."""
    snapshot_every: Positive = 4
    """Epochs from one kept snapshot to the next; the last epoch and ODD's are always kept. Each snapshot is scored."""
    from_: str | None = Field(default=None, alias="from")
    """Weights to start from: a snapshot, a checkpoint, or another run's folder. On features a run, whose heads,
    statistics and joint model are taken as they are for new shards."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` (Nesterov), or `adamw`, by which pre-trained transformers are fine-tuned as a rule. A role with another
    one than `main`'s starts from that optimizer's defaults of `lr`, `momentum` and `weight_decay`."""
    lr: float = Field(default=0.1, gt=0)
    """The learning rate at the start; with `adamw` at most 0.01, and 1e-3 or so for new weights."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; with `adamw` its beta 1 (beta 2 is .999)."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Of all weights; with `adamw` beside the step."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """How the rate falls: per step to 0, never, or by `decay` after each of the `milestones`."""
    milestones: list[Positive] = Field(default=[], validate_default=True)
    """With `schedule: step`: epochs after which the rate falls, such as [40, 80]. A role with another schedule sets
    `[]`; those past a role's last epoch are never reached."""
    decay: float = Field(default=0.1, gt=0, lt=1)
    """With `schedule: step`: what the rate is multiplied by."""
    batch_size: Positive = 128
    """Rows per step and training worker."""
    augment: Augment = "crop_flip"
    """What is done to each image: nothing; zero padding, crop and flip; AutoAugment's policy for CIFAR-10 before
    these; or a box of .08 to 1 of the image, 3/4 to 4/3 as wide as high, resized to the whole, with a flip."""
    workers: Positive = 1
    """Training workers (Ray Train); one per GPU. With another number the same training gives other weights, equally
    good."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """As `score.precision`, while training."""
    trajectories: Literal["exact"] = "exact"
    """Losses and margins over epochs come from a pass over all rows after each epoch, without augmentation."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """On features: parts of the rows, to each of which some heads are blind; rows of a clip or of equal pixels are
    in one."""
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(default=[0.03, 0.3, 1.0], min_length=1, max_length=8)
    """On features: heads are trained with each of them; a role takes the one by which blind heads tell the given
    labels best. Strong noise wants more."""
    head: Literal["linear", "hidden"] = "linear"
    """On features: `hidden` puts 512 rectified units before the last layer; with `epochs: 100` it over-fits, as the
    papers' networks do."""
    roles: dict[str, dict[str, Any]] = Field(default={})
    """Further trainings by name, and fields above (and `model`) that each has otherwise: `{ce: {epochs: 20}}`. Those
    that scores need (`ce`, `ce_ne`, `aum1`, `aum2`) need no line; `plant` is trained where it is named."""

    @model_validator(mode="before")
    @classmethod
    def _optimizers_defaults(cls, fields: Any) -> Any:
        is_adamw = isinstance(fields, dict) and fields.get("optimizer") == "adamw"
        return {**ADAMW, **fields} if is_adamw else fields

    @field_validator("lr")
    @classmethod
    def _check_lr(cls, lr: float, info: ValidationInfo) -> float:
        if info.data.get("optimizer") == "adamw" and lr > ADAMW_MAX_RATE:
            raise ValueError(
                f"at most {ADAMW_MAX_RATE} expected with optimizer adamw, which moves every weight by about the rate "
                f"at each step, however small its gradient; take {ADAMW['lr']:g} or so, or set optimizer=sgd"
            )
        return lr

    @field_validator("milestones")
    @classmethod
    def _check_milestones(cls, milestones: list[int], info: ValidationInfo) -> list[int]:
        schedule = info.data.get("schedule", "step" if milestones else "cosine")  # it may be wrong itself
        if schedule == "step" and not milestones:
            raise ValueError("schedule step needs the epochs after which the rate falls, such as [40, 80]")
        if schedule != "step" and milestones:
            raise ValueError(f"schedule {schedule} has no milestones; set schedule=step, or milestones=[]")
        if milestones != sorted(set(milestones)):
            raise ValueError("epochs that grow expected, such as [40, 80]")
        return milestones

    def changed(self, *changes: Mapping[str, Any]) -> TrainSection:
        """The same, without roles, but for some fields by their names in a config; the later changes win.

        Raises:
            pydantic.ValidationError: a field is unknown, or does not fit the others.
        """
        new = {name: value for each in changes for name, value in each.items()}
        is_other = new.get("optimizer", self.optimizer) != self.optimizer
        left_out = {"roles", *(OF_OPTIMIZER if is_other else ())}
        return TrainSection.model_validate(self.model_dump(by_alias=True, exclude=left_out) | new)

    def snapshot_epochs(self) -> tuple[int, ...]:
        """Epochs (from 1) after which weights are kept; the last one always is. Epoch 0: `epochs: 0`."""
        if self.epochs == 0:
            return (0,)
        return tuple(e for e in range(1, self.epochs + 1) if e % self.snapshot_every == 0 or e == self.epochs)
