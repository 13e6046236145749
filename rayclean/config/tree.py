"""The whole config: its sections, what must fit between them, and what follows from them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError, model_validator

from rayclean.config.explain import explain, nearest
from rayclean.config.features_text import check_features
from rayclean.config.learn_section import DIVIDEMIX_ON_FEATURES, LearnSection
from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS
from rayclean.config.score_families import FAMILIES
from rayclean.config.score_sections import (
    InfluenceSection,
    InnSection,
    IofmSection,
    NeighborsSection,
    SimulatedLossSection,
)
from rayclean.config.sections import (
    BlocksSection,
    DataSection,
    MergeSection,
    ModelSection,
    NoiseSection,
    ResourcesSection,
    RunSection,
    ScoreSection,
    Section,
)
from rayclean.config.train_section import HEADS, TrainSection
from rayclean.errors import ConfigError
from rayclean.schema import JOINT, MAIN, SCORES, Score

SELF = "self"
# What roles do by default otherwise than `main`.
PLANT = "plant"  # trained where it is named: some of its labels are drawn uniformly, to check ODD's simulation
THRESHOLDED = ("aum1", "aum2")  # in each, other rows are AUM's threshold samples
ROLES: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    "ce_ne": {"loss": "ce+ne"},
    PLANT: {},
    **{role: {} for role in THRESHOLDED},
}


class Config(Section):
    """What is no section but a field."""

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
    """The scores of the run; the families are below. Without it those of role `main` that cost few forwards: `inn`,
    `osm`, `osd` and those of other roles are named where they are wanted."""
    merge: MergeSection = MergeSection()
    learn: LearnSection = LearnSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="before")
    @classmethod
    def _heads_defaults(cls, tree: Any) -> Any:
        """What is trained on features are heads, which have other defaults than networks."""
        if not isinstance(tree, dict):
            return tree
        model, data, train = (tree.get(name) or {} for name in ("model", "data", "train"))
        sections = [each for each in (model, data, train) if isinstance(each, dict)]
        if len(sections) < 3 or not (model.get("frozen") or data.get("features")):
            return tree
        found = {**tree, "train": {**HEADS, **train}}
        learn = tree.get("learn") or {}
        if isinstance(learn, dict) and isinstance(divide := learn.get("dividemix") or {}, dict):
            found["learn"] = {**learn, "dividemix": {**DIVIDEMIX_ON_FEATURES, **divide}}
        return found

    @model_validator(mode="after")
    def _check(self) -> Config:
        self._check_data()
        check_features(self.data, self.model)
        if self.on_features:
            self._check_heads()
        for name, changes in self.train.roles.items():
            self._check_role(name, changes)
        self._check_changes("learn.train", self.learn.train, ())
        self._check_scores()
        self._check_families()
        return self

    def _check_data(self) -> None:
        if self.data.group is None and self.data.group_by != "scores":
            raise ValueError(f"data.group_by is {self.data.group_by}, but data.group does not say what to group by")
        kind, imbalance = self.noise.kind, self.noise.imbalance
        if self.data.group is not None and kind is not None and NOISE_KINDS.get(kind).reads_images:
            raise ValueError(f"noise.kind {kind} looks at single images, but data.group has labels of whole clips")
        if self.influence.validation is not None and imbalance is not None and IMBALANCES.get(imbalance).picks_classes:
            raise ValueError(f"influence.validation cannot be used with noise.imbalance {imbalance}: other classes")
        if self.blocks.table_rows % self.blocks.rows:
            raise ValueError(
                f"blocks.table_rows ({self.blocks.table_rows}) must be a multiple of blocks.rows ({self.blocks.rows})"
            )
        untrained = self.train.epochs == 0 and not self.on_features
        if untrained and self.train.from_ is None and self.model.weights is None:
            raise ValueError("train.epochs is 0, so train.from (or model.weights) must name weights to score with")

    def _check_heads(self) -> None:
        if self.train.epochs == 0:
            raise ValueError("train.epochs is 0, but on features heads must learn; leave it out, or set train.from")
        if self.train.from_ is not None:
            needing = [name for name in self.scores or [] if name in SCORES and SCORES[name].needs_epochs]
            if needing:
                raise ValueError(f"score {needing[0]} needs epochs, but with train.from heads are taken as they are")
        for field, epochs in (("inn.epochs", self.inn.epochs), ("neighbors.vote_epochs", self.neighbors.vote_epochs)):
            if epochs:
                raise ValueError(f"{field}: features are the same at all epochs; leave it out")
        for name, changes in self.train.roles.items():
            if "model" in changes:
                raise ValueError(f"train.roles.{name}.model: on features all roles are heads; leave it out")
        if self.noise.kind is not None and NOISE_KINDS.get(self.noise.kind).reads_images and not self.data.has_images:
            raise ValueError(f"noise.kind {self.noise.kind} looks at images, but data.image is none")

    def _check_scores(self) -> None:
        scores = FAMILIES.scores()
        for name in self.scores or []:
            if name in scores and scores[name].on_features and not self.on_features:
                raise ValueError(f"score {name} is of heads on features; set model.frozen or data.features")
        for name in self.scores or []:
            if name not in scores:
                raise ValueError(f"scores: unknown score '{name}'{nearest(name, tuple(scores))}")
        valid = ("auto", JOINT, *scores)
        if self.merge.score not in valid:
            raise ValueError(f"merge.score: unknown score '{self.merge.score}'{nearest(self.merge.score, valid)}")
        for name in self.scores or []:
            if scores[name].needs_epochs and self.train_of(scores[name].role).epochs == 0:
                raise ValueError(f"score {name} needs epochs, but train.epochs is 0 in role {scores[name].role}")
        if "osd" in (self.scores or []) and self.influence.validation is None:
            raise ValueError("score osd needs verified samples: set influence.validation to their shards, or to split")

    def _check_families(self) -> None:
        for role in (PLANT, *THRESHOLDED):
            if role in self.train.roles and self.train_of(role).epochs == 0:
                raise ValueError(f"train.roles.{role}: planted labels must be trained on, but its epochs are 0")
        self._check_known_role("influence.role", self.influence.role)
        self._check_known_role("simulated_loss.role", self.simulated_loss.role)
        if self.inn.file is None:
            self._check_known_role("inn.features", self.inn.features, SELF)
        num_epochs, epoch = self.train_of(self.simulated_loss.role).epochs, self.simulated_loss.epoch
        if num_epochs and isinstance(epoch, int) and epoch > num_epochs and not self.on_features:
            role = self.simulated_loss.role
            raise ValueError(f"simulated_loss.epoch: found {epoch}, but role {role} has {num_epochs}")
        if self.on_features:
            return
        has_none = self.inn.file is None and self.inn.features not in (SELF, MAIN, *self.train.roles)
        untrained = self.train.epochs == 0 and has_none
        if "inn" in (self.scores or []) and untrained:
            raise ValueError(
                f"inn.features: train.epochs is 0, so no role {self.inn.features} is trained; set inn.features=self, "
                f"or train.roles.{self.inn.features}"
            )
        for field, role, epochs in (
            ("inn.epochs", MAIN, self.inn.epochs),
            ("neighbors.vote_epochs", MAIN, self.neighbors.vote_epochs),
            ("influence.epochs", self.influence.role, self.influence.epochs),
        ):
            unknown = sorted(set(epochs or []) - set(self.train_of(role).snapshot_epochs()))
            if unknown:
                raise ValueError(f"{field}: no snapshot after epoch {unknown[0]}; see train.snapshot_every")

    def _check_known_role(self, field: str, role: str, *others: str) -> None:
        valid = (*others, MAIN, *ROLES, *self.train.roles)
        if role not in valid:
            raise ValueError(f"{field}: no role '{role}'{nearest(role, valid)}")

    def _check_role(self, name: str, changes: dict[str, Any]) -> None:
        if name in (MAIN, SELF) or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise ValueError(f"train.roles: a role cannot be called '{name}'; main is set by train itself")
        self._check_changes(f"train.roles.{name}", changes, ("model",))
        train, model = self.train_of(name), self.model_of(name)
        if train.epochs == 0 and "from" not in changes and model.weights is None:
            raise ValueError(f"train.roles.{name}.epochs is 0, so its from (or model.weights) must name weights")

    def _check_changes(self, where: str, changes: dict[str, Any], others: tuple[str, ...]) -> None:
        """Refuses changes of `train` that are no fields of it, or that do not fit the rest."""
        valid = [field.alias or key for key, field in TrainSection.model_fields.items() if key != "roles"]
        for field in changes:
            if field not in (*valid, *others):
                raise ValueError(f"{where}.{field}: unknown field{nearest(field, [*valid, *others])}")
        model = changes.get("model", {})
        if not isinstance(model, dict):
            raise ValueError(f"{where}.model: fields of model expected, found {model!r}")
        try:
            self._changed(changes, {})
            ModelSection.model_validate({**self.model.model_dump(), **model})
        except ValidationError as e:
            raise ValueError(f"{where}.{'; '.join(explain(error, TrainSection) for error in e.errors())}") from e

    def _changed(self, changes: dict[str, Any], others: dict[str, Any]) -> TrainSection:
        return self.train.changed(others, {name: value for name, value in changes.items() if name != "model"})

    @property
    def on_features(self) -> bool:
        """Whether a frozen network, or what is there already, gives features, and heads are all that is trained."""
        return self.model.frozen or self.data.features is not None

    @property
    def learn_role(self) -> str:
        """The role whose network and settings `rayclean learn` takes: that of `learn.from`, else `main`."""
        return self.learn.from_ if self.learn.from_ in self.role_names() else MAIN

    def train_to_learn(self) -> TrainSection:
        """How networks are trained with the result: as the role, but for `learn.train`, and from the start."""
        return self.train_of(self.learn_role).changed({"from": None}, self.learn.train)

    def test_data(self) -> DataSection | None:
        """How test samples are read; None without any."""
        if self.learn.test is None:
            return None
        changes = {"shards": self.learn.test, "label": self.learn.test_label or self.data.label}
        return self.data.model_copy(update={**changes, "truth": None, "group": None})

    def train_of(self, role: str) -> TrainSection:
        """How a role is trained: as `main`, but for what the role changes; another network starts elsewhere."""
        if role == MAIN:
            return self.train
        changes = {**ROLES.get(role, {}), **self.train.roles.get(role, {})}
        return self._changed(changes, {"from": None} if self._has_other_network(role) else {})

    def model_of(self, role: str) -> ModelSection:
        """The network of a role; fields that it does not set are those of `model`, but for another's weights."""
        changes = self.train.roles.get(role, {}).get("model", {})
        same = self.model.model_dump()
        if self._has_other_network(role):
            same["weights"] = None
        return ModelSection.model_validate({**same, **changes})

    def _has_other_network(self, role: str) -> bool:
        return bool({"name", "weights"} & set(self.train.roles.get(role, {}).get("model", {})))

    def also_kept(self, role: str) -> tuple[int, ...]:
        """Epochs after which a role's weights are kept whatever `snapshot_every` says: ODD's."""
        epochs = self.train_of(role).epochs
        return (self.simulated_loss.epoch_of(epochs),) if epochs and self.is_judged(role) else ()

    def is_judged(self, role: str) -> bool:
        """Whether ODD judges a role's losses."""
        return role in (self.simulated_loss.role, PLANT)

    def role_names(self) -> tuple[str, ...]:
        """The roles that are trained: `main`, those that the scores need, and those that `train.roles` names."""
        names, scores = self.score_names(), FAMILIES.scores()
        needed = [scores[name].role for name in names]
        if "inn" in names and self.inn.file is None and self.inn.features != SELF and not self.on_features:
            needed.append(self.inn.features)
        if {"osm", "osd"} & set(names):
            needed.append(self.influence.role)
        if "odd" in names:
            needed.append(self.simulated_loss.role)
        if "aum_excess" in names:
            needed += THRESHOLDED
        return tuple(dict.fromkeys((MAIN, *needed, *self.train.roles)))

    def validation_data(self) -> DataSection | None:
        """How verified samples are read, where shards of their own hold them."""
        influence = self.influence
        if influence.validation in (None, "split"):
            return None
        changes = {"shards": influence.validation, "label": influence.validation_label or self.data.label}
        return self.data.model_copy(update={**changes, "truth": None, "group": None})

    @property
    def verified_label(self) -> str | None:
        """Where the verified labels of rows kept apart are, if not where the given ones are."""
        label = self.influence.validation_label
        return label if self.influence.held_out and label != self.data.label else None

    @property
    def has_truth(self) -> bool:
        """Whether true labels are known, so that a run can be evaluated."""
        return self.data.truth is not None or self.noise.is_on

    def score_names(self) -> tuple[str, ...]:
        """The scores of the run, in the table's order."""
        scores = FAMILIES.scores()
        if self.on_features:
            return tuple(name for name, score in scores.items() if self._is_wanted_of_features(score))
        if self.scores is not None:
            return tuple(name for name in scores if name in self.scores)
        usual = [score for score in scores.values() if score.default]
        return tuple(score.name for score in usual if self.train.epochs or not score.needs_epochs)

    def _is_wanted_of_features(self, score: Score) -> bool:
        """Those out of fold always; without a list the usual ones but IOFM, since snapshots of heads hardly differ."""
        if score.on_features:
            return True
        if score.needs_epochs and self.train.from_ is not None:
            return False
        return score.name in self.scores if self.scores is not None else score.default and score.name != "iofm"

    def merge_score(self) -> str:
        """The score whose mixture gives `label_score`, or `joint`.

        Raises:
            ConfigError: it is not among the scores of the run.
        """
        names = self.score_names()
        if not names:
            raise ConfigError("scores is empty: nothing to merge; name at least one score")
        if self.merge.score in ("auto", JOINT):
            return JOINT
        if self.merge.score not in names:
            raise ConfigError(f"merge.score is {self.merge.score}, but scores are {', '.join(names)}; add it")
        return self.merge.score
