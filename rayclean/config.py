"""The config: one frozen model a section, YAML plus `section.field=value`, unknown fields refused.

`load_config` expands `${NAME}` from the environment and checks what can be checked without data; what a stage
reads of it goes into that stage's fingerprint (`rayclean.storage.fingerprint`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rayclean.errors import ConfigError
from rayclean.schema import MERGE_ORDER, SCORES

SCORE_NAMES = tuple(SCORES)
MAIN = "main"
SELF = "self"
# What roles do by default otherwise than `main`.
ROLES: dict[str, dict[str, Any]] = {"ce": {"loss": "ce"}, "ce_ne": {"loss": "ce+ne"}}

Positive = Annotated[int, Field(gt=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, no field that is not declared, no number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class RunSection(Section):
    """Where the run lies and what it keeps."""

    dir: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    keep: Literal["default", "all"] = "default"
    mix_environments: bool = False


class DataSection(Section):
    """The shards and how to read a sample."""

    shards: str | list[str]
    image: str = "png;jpg;jpeg;webp"
    label: str = "cls"
    truth: str | None = None
    classes: int | list[str] | str
    size: Positive | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None
    max_pixels: PositiveNumber = 50e6
    max_bad_share: Share = 0.01
    cache_bytes: int = Field(default=4 * 2**30, ge=0)
    shuffle_rows: Positive = 10_000

    @property
    def image_extensions(self) -> tuple[str, ...]:
        """Image extensions in order of preference, lower case."""
        return tuple(part.strip().lower() for part in self.image.split(";") if part.strip())


class NoiseSection(Section):
    """Noise made on purpose: the labels of the shards are taken as the truth (docs/methods.md, section 9)."""

    kind: (
        Literal[
            "symmetric",
            "symmetric_exclusive",
            "asymmetric_cifar10",
            "next_class",
            "matrix",
            "per_class",
            "instance",
        ]
        | None
    ) = None
    rate: Share | None = None
    rates: list[Share] | None = None
    matrix: list[list[Share]] | None = None
    imbalance: Literal["long_tail", "step", "two_class"] | None = None
    ratio: float = Field(default=10.0, ge=1)
    classes: list[int] | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is done to the labels or rows."""
        return self.kind is not None or self.imbalance is not None

    @property
    def rates_array(self) -> NDArray[np.float64] | None:
        """(K,) rates of `per_class`."""
        return None if self.rates is None else np.array(self.rates)

    @property
    def matrix_array(self) -> NDArray[np.float64] | None:
        """(K, K) P(given | true) of `matrix`."""
        return None if self.matrix is None else np.array(self.matrix)


class ModelSection(Section):
    """The network."""

    name: str = "small_resnet"
    width: Positive = 16
    weights: str | None = None
    bottleneck: Positive | None = None


class TrainSection(Section):
    """How role `main` is trained; `roles` holds what other roles do otherwise, by name."""

    loss: Literal["mixup", "ce", "ce+ne"] = "mixup"
    mixup_alpha: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=40, ge=0)
    snapshot_every: Positive = 4
    from_: str | None = Field(default=None, alias="from")
    optimizer: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: Share = 0.9
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    batch_size: Positive = 128
    augment: Literal["none", "crop_flip", "autoaugment"] = "crop_flip"
    workers: Positive = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    trajectories: Literal["exact"] = "exact"
    roles: dict[str, dict[str, Any]] = {}

    def snapshot_epochs(self) -> tuple[int, ...]:
        """Epochs (from 1) after which weights are kept; the last one always is. Epoch 0: `epochs: 0`."""
        if self.epochs == 0:
            return (0,)
        return tuple(e for e in range(1, self.epochs + 1) if e % self.snapshot_every == 0 or e == self.epochs)


class ScoreSection(Section):
    """How the network is run when it scores."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: Positive = 64


class NeighborsSection(Section):
    """The neighbour search."""

    pool: Positive | None = None
    recall_target: Share = 0.95
    # Rows searched at once from which IVF, its making included, takes about a third of flat search; below it
    # seconds are saved at most, and flat is exact. Measured: docs/results/neighbors.md.
    ivf_rows: Positive = 20_000


class IofmSection(Section):
    """IOFM: L neighbours with the same label, paths of H steps."""

    num: Positive = 10
    steps: int = Field(default=3, ge=2)


class InnSection(Section):
    """INN: L neighbours of any label, near by the features of another network, paths of H steps.

    `features`: a role, or `self` for the scoring network's own. `epochs`: snapshots that are scored, the last one
    alone by default; the score is that of the last of them. `end_points: false` with `steps: 2` is the midpoint
    score.
    """

    num: Positive = 10
    steps: int = Field(default=10, ge=2)
    features: str = "ce"
    epochs: list[Positive] | None = None
    end_points: bool = True


class InfluenceSection(Section):
    """Influential Rank's OSM and OSD on the last layer.

    `validation`: shards of verified samples, or `split` for a fixed seeded part of the data that is then neither
    trained on nor scored; `validation_num` a class are used. `gamma`: classes that must agree, a count or a share.
    """

    role: str = "main"
    damping: float = Field(default=0.01, gt=0)
    hessian_rows: Positive = 10_000
    probes: Positive = 200
    validation: str | list[str] | None = None
    validation_label: str | None = None
    validation_num: Positive = 5
    gamma: Annotated[int, Field(ge=0)] | Share = 0.8
    standardize: Literal["samples", "classes"] = "samples"

    @property
    def held_out(self) -> int:
        """Rows of each class that are kept apart."""
        return self.validation_num if self.validation == "split" else 0


class SimulatedLossSection(Section):
    """ODD: the loss that uniformly random labels would have, simulated from the last layer.

    `epoch`: a whole number, or a share of the role's epochs; its weights are always kept. `average`: epochs up to it
    whose mean loss is judged.
    """

    role: str = "main"
    epoch: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 0.375
    percentile: float = Field(default=10.0, ge=0, le=100)
    average: Positive = 3
    kind: Literal["gauss", "gauss_pooled", "empirical"] = "gauss"

    def epoch_of(self, num_epochs: int) -> int:
        """E, 1..num_epochs: a share is rounded half up, to at least 1; .375 of 40 epochs is 15."""
        return self.epoch if isinstance(self.epoch, int) else max(int(self.epoch * num_epochs + 0.5), 1)


class BlocksSection(Section):
    """Sizes of the units; part of every fingerprint that they touch."""

    rows: Positive = 4000
    pairs: Positive = 4096
    index_rows: Positive = 100_000
    table_rows: Positive = 1_000_000


class MergeSection(Section):
    """Which score becomes a probability, and where the cut lies."""

    score: str = "auto"
    threshold: Share = 0.5
    sample_rows: Positive = 100_000


class Pool(Section):
    """Resources of one pool of workers; what is left out is chosen by device."""

    cpus: float | None = Field(default=None, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    actors: Positive | None = None


class ResourcesSection(Section):
    """One pool a kind of work."""

    catalog: Pool = Pool()
    train: Pool = Pool()
    score: Pool = Pool()
    merge: Pool = Pool()


class Config(Section):
    """A whole run."""

    run: RunSection
    data: DataSection
    noise: NoiseSection = NoiseSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    score: ScoreSection = ScoreSection()
    neighbors: NeighborsSection = NeighborsSection()
    iofm: IofmSection = IofmSection()
    inn: InnSection = InnSection()
    influence: InfluenceSection = InfluenceSection()
    simulated_loss: SimulatedLossSection = SimulatedLossSection()
    blocks: BlocksSection = BlocksSection()
    scores: list[str] | None = None
    merge: MergeSection = MergeSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="after")
    def _check_names(self) -> Config:
        for name in self.scores or []:
            if name not in SCORE_NAMES:
                raise ValueError(f"scores: unknown score '{name}'{_nearest(name, SCORE_NAMES)}")
        if self.merge.score not in ("auto", *SCORE_NAMES):
            raise ValueError(
                f"merge.score: unknown score '{self.merge.score}'{_nearest(self.merge.score, SCORE_NAMES)}"
            )
        if self.noise.is_on and self.data.truth is not None:
            raise ValueError("noise takes the labels of the shards as the truth: unset data.truth, or noise")
        if self.blocks.table_rows % self.blocks.rows:
            raise ValueError(
                f"blocks.table_rows ({self.blocks.table_rows}) must be a multiple of blocks.rows ({self.blocks.rows})"
            )
        if self.train.epochs == 0 and self.train.from_ is None and self.model.weights is None:
            raise ValueError("train.epochs is 0, so train.from (or model.weights) must name weights to score with")
        for name, changes in self.train.roles.items():
            self._check_role(name, changes)
        for name in self.scores or []:
            if SCORES[name].needs_epochs and self.train_of(SCORES[name].role).epochs == 0:
                raise ValueError(f"score {name} needs epochs, but train.epochs is 0 in role {SCORES[name].role}")
        if "osd" in (self.scores or []) and self.influence.validation is None:
            raise ValueError("score osd needs verified samples: set influence.validation to their shards, or to split")
        self._check_known_role("influence.role", self.influence.role)
        self._check_known_role("simulated_loss.role", self.simulated_loss.role)
        epochs, epoch = self.train_of(self.simulated_loss.role).epochs, self.simulated_loss.epoch
        if epochs and isinstance(epoch, int) and epoch > epochs:
            raise ValueError(f"simulated_loss.epoch: found {epoch}, but role {self.simulated_loss.role} has {epochs}")
        if self.influence.validation is not None and self.noise.imbalance == "two_class":
            raise ValueError("influence.validation cannot be used with noise.imbalance two_class: other classes")
        self._check_known_role("inn.features", self.inn.features, SELF)
        untrained = self.train.epochs == 0 and self.inn.features not in (SELF, MAIN, *self.train.roles)
        if "inn" in (self.scores or []) and untrained:
            raise ValueError(
                f"inn.features: train.epochs is 0, so no role {self.inn.features} is trained; set inn.features=self, "
                f"or train.roles.{self.inn.features}"
            )
        open_epochs = sorted(set(self.inn.epochs or []) - set(self.train.snapshot_epochs()))
        if open_epochs:
            raise ValueError(f"inn.epochs: no snapshot after epoch {open_epochs[0]}; see train.snapshot_every")
        return self

    def _check_known_role(self, field: str, role: str, *others: str) -> None:
        valid = (*others, MAIN, *ROLES, *self.train.roles)
        if role not in valid:
            raise ValueError(f"{field}: no role '{role}'{_nearest(role, valid)}")

    def _check_role(self, name: str, changes: dict[str, Any]) -> None:
        if name in (MAIN, SELF) or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError(f"train.roles: a role cannot be called '{name}'; main is set by train itself")
        for field in changes:
            valid = [field.alias or key for key, field in TrainSection.model_fields.items() if key != "roles"]
            if field not in (*valid, "model"):
                raise ValueError(f"train.roles.{name}.{field}: unknown field{_nearest(field, [*valid, 'model'])}")
        try:
            train, model = self.train_of(name), self.model_of(name)
        except ValidationError as e:
            raise ValueError(f"train.roles.{name}.{'; '.join(_explain(error) for error in e.errors())}") from e
        if train.epochs == 0 and "from" not in changes and model.weights is None:
            raise ValueError(f"train.roles.{name}.epochs is 0, so its from (or model.weights) must name weights")

    def train_of(self, role: str) -> TrainSection:
        """How a role is trained: as `main`, but for what the role changes."""
        if role == MAIN:
            return self.train
        changes = {**ROLES.get(role, {}), **self.train.roles.get(role, {})}
        changes.pop("model", None)
        same = self.train.model_dump(by_alias=True, exclude={"roles"})
        return TrainSection.model_validate({**same, **changes})

    def model_of(self, role: str) -> ModelSection:
        """The network of a role; fields that the role does not set are those of `model`."""
        changes = self.train.roles.get(role, {}).get("model", {})
        return ModelSection.model_validate({**self.model.model_dump(), **changes})

    def also_kept(self, role: str) -> tuple[int, ...]:
        """Epochs after which a role's weights are kept whatever `snapshot_every` says: ODD's."""
        epochs = self.train_of(role).epochs
        return (self.simulated_loss.epoch_of(epochs),) if epochs and role == self.simulated_loss.role else ()

    def role_names(self) -> tuple[str, ...]:
        """The roles that are trained: `main`, those that the scores need, and those that `train.roles` names."""
        names = self.score_names()
        needed = [SCORES[name].role for name in names]
        if "inn" in names and self.inn.features != SELF:
            needed.append(self.inn.features)
        if {"osm", "osd"} & set(names):
            needed.append(self.influence.role)
        if "odd" in names:
            needed.append(self.simulated_loss.role)
        return tuple(dict.fromkeys((MAIN, *needed, *self.train.roles)))

    def validation_data(self) -> DataSection | None:
        """How verified samples are read, where shards of their own hold them."""
        influence = self.influence
        if influence.validation in (None, "split"):
            return None
        changes = {"shards": influence.validation, "label": influence.validation_label or self.data.label}
        return self.data.model_copy(update={**changes, "truth": None})

    @property
    def has_truth(self) -> bool:
        """Whether true labels are known, so that a run can be evaluated."""
        return self.data.truth is not None or self.noise.is_on

    def score_names(self) -> tuple[str, ...]:
        """The scores of the run, in the table's order."""
        if self.scores is not None:
            return tuple(name for name in SCORE_NAMES if name in self.scores)
        usual = [score for score in SCORES.values() if score.default]
        return tuple(score.name for score in usual if self.train.epochs or not score.needs_epochs)

    def merge_score(self) -> str:
        """The score whose mixture gives `label_score`.

        Raises:
            ConfigError: it is not among the scores of the run.
        """
        names = self.score_names()
        if self.merge.score != "auto":
            if self.merge.score not in names:
                raise ConfigError(f"merge.score is {self.merge.score}, but scores are {', '.join(names)}; add it")
            return self.merge.score
        for name in (*MERGE_ORDER, *names):
            if name in names:
                return name
        raise ConfigError("scores is empty: nothing to merge; name at least one score")


def _nearest(name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(sorted(valid))}"


def _expand(value: Any) -> Any:
    """Replaces `${NAME}` in strings by the environment's value."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"the config uses ${{{name}}}, but the environment has no {name}; export it first")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", lookup, value)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, sep, text = override.partition("=")
    parts = name.strip().split(".")
    if not sep or not all(parts):
        raise ConfigError(f"'{override}' is not an override; write section.field=value")
    for part in parts[:-1]:
        child = tree.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"'{override}': {part} is not a section")
        tree = child
    try:
        tree[parts[-1]] = yaml.safe_load(text) if text else None
    except yaml.YAMLError as e:
        raise ConfigError(f"'{override}': the value is not YAML: {e}") from e


def _valid_fields(location: Sequence[int | str]) -> list[str]:
    """Names that are valid at the place where an unknown field was found."""
    model: type[BaseModel] = Config
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _explain(error: Mapping[str, Any]) -> str:
    location = [part for part in error["loc"] if isinstance(part, str)]
    where = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown field{_nearest(location[-1], _valid_fields(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where}: required, but not set"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message} (found {error['input']!r})" if where else message


def parse_config(tree: Mapping[str, Any], source: str = "config") -> Config:
    """Checks a tree of plain values.

    Raises:
        ConfigError: unknown or missing fields, values out of range, contradictions; all of them at once.
    """
    try:
        return Config.model_validate(_expand(dict(tree)))
    except ValidationError as e:
        lines = dict.fromkeys(_explain(error) for error in e.errors())
        raise ConfigError(f"{source}: " + "; ".join(lines)) from e


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file and applies `section.field=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, or the config is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is not a text file: {e}") from e
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: is not YAML: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (run, data, ...), found {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, str(path))


def dump_config(config: Config) -> dict[str, Any]:
    """The config as plain values that `parse_config` reads back."""
    return config.model_dump(mode="json", by_alias=True)
