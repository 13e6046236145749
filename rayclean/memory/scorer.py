"""LabelScorer: a run on arrays in memory, or the scores of features and predictions that are there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.memory.arrays import as_items
from rayclean.memory.blind import fit_predicted, score_predictions
from rayclean.memory.configs import on_features, on_images, on_predictions
from rayclean.memory.inputs import (
    check_columns,
    read_features,
    read_keys,
    read_probabilities,
    read_samples,
    read_stored_features,
    read_verified_samples,
    told_apart,
)
from rayclean.memory.labels import read_labels, read_verified_labels
from rayclean.memory.merge import MEMORY, merged
from rayclean.memory.rows import Samples
from rayclean.memory.run import Scored, begin, begin_features, score
from rayclean.memory.training import AfterEpoch, Training, torch_settings_kept, train_further
from rayclean.merge.models import Fitted
from rayclean.schema import Array
from rayclean.scores.block import BlockScores
from rayclean.storage.draws import pixel_digest
from rayclean.train.heads import HeadSettings


class LabelScorer(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Scores labels as `rayclean run` does, without Ray, files or FAISS.

    Settings are those of the YAML config, section by section: `LabelScorer(train={"epochs": 120}, iofm={"num": 5})`.
    They are parameters as scikit-learn has them: `get_params`, `set_params` and `clone` work.

    Args:
        model: a network's name (`small_resnet`), or the whole section.
        scores: names, see `rayclean.schema.SCORES`; by default those that need no further training.
        device: `cuda` or `cpu`; by default what there is.
        seed: of every draw.
        sections: further sections of the config: train, score, neighbors, iofm, inn, influence, simulated_loss, merge.

    Attributes:
        labels_: the final table (pyarrow), one row per sample, in the order given; see docs/design.md, section 6.
        classes_: names of the classes, by label; `0`, `1`, ... where labels are numbers and `classes` was not given.
        summary_: rows, issues, estimated noise rate, and whether it is reliable.
        seconds_: of `fit`, by stage: train, embed, neighbors, paths, merge, ...

    Raises:
        ConfigError: the settings cannot be right.
    """

    labels_: pa.Table
    classes_: list[str]
    summary_: dict[str, Any]
    seconds_: dict[str, float]

    def __init__(
        self,
        model: str | Mapping[str, Any] = "small_resnet",
        scores: Sequence[str] | None = None,
        *,
        device: str | None = None,
        seed: int = 0,
        **sections: Mapping[str, Any],
    ) -> None:
        self.model, self.scores, self.device, self.seed, self.sections = model, scores, device, seed, sections
        config = on_images(self._tree, 2, None)  # what is wrong shows here, not after the training
        if config.merge.verified is not None:
            raise ConfigError(f"merge.verified {config.merge.verified}: such a file is for runs, not for LabelScorer")
        if config.noise.is_on:
            raise ConfigError("noise: labels are made wrong on purpose by runs, not by LabelScorer")
        self._scores: dict[str, Array] = {}
        self._scored: Scored | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that it was made with, sections too; `deep` is scikit-learn's."""
        return {**super().get_params(deep=False), **self.sections}

    def set_params(self, **params: Any) -> LabelScorer:
        """Changes some of these arguments; what was fitted is forgotten.

        Raises:
            ConfigError: the settings cannot be right.
        """
        made = type(self)(**{**self.get_params(), **params})  # what is wrong leaves this one as it is
        self.__dict__ = made.__dict__
        return self

    @property
    def _device(self) -> str:
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def _tree(self) -> dict[str, Any]:
        return {
            "run": {"dir": MEMORY, "seed": self.seed},
            "model": {"name": self.model} if isinstance(self.model, str) else dict(self.model),
            "scores": None if self.scores is None else list(self.scores),
            **{name: dict(section) for name, section in self.sections.items()},
        }

    @property
    def role_names(self) -> tuple[str, ...]:
        """The networks that `fit` trains, in its order: `main`, and those that the scores need."""
        return on_images(self._tree, 2, None).role_names()

    def train(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        role: str,
        *,
        num_classes: int | None = None,
        classes: ArrayLike | None = None,
        keys: ArrayLike | None = None,
        training: Training | None = None,
        after_epoch: AfterEpoch | None = None,
    ) -> Training:
        """Trains one role alone, for `fit(roles=...)`: what takes hours can so be done in parts and kept on disk.

        Args:
            images: as of `fit`; so are labels, num_classes, classes and keys.
            labels: see `fit`.
            role: one of `role_names`.
            num_classes: see `fit`.
            classes: see `fit`.
            keys: see `fit`.
            training: of an earlier call with the same settings and samples, to go on from, and changed; nothing is
                left to do where it is finished.
            after_epoch: called with the epoch and the training so far; training ends there where it returns False.

        Raises:
            ConfigError: there is no such role.
            InputError: the arrays do not fit.
        """
        given = read_samples(images, labels, keys, num_classes, classes)
        config, training = on_images(self._tree, len(given.classes), given.images.shape[1]), training or Training()
        if role not in config.role_names():
            raise ConfigError(f"role {role}: there is none for these scores; roles: {', '.join(config.role_names())}")
        with torch_settings_kept():
            train_further(begin(config, given, self._device).roles[role].task, training, after_epoch)
        return training

    def fit(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        *,
        num_classes: int | None = None,
        classes: ArrayLike | None = None,
        verified: tuple[ArrayLike, ArrayLike] | None = None,
        keys: ArrayLike | None = None,
        roles: Mapping[str, Training] | None = None,
    ) -> LabelScorer:
        """Trains on the images, scores every label and makes the table.

        Args:
            images: (N, S, S, 3) uint8, as an array, a tensor or a list of arrays.
            labels: (N,) whole numbers from 0, or names of classes, as an array, a list, a Series or a tensor; by
                position, whatever a Series' index.
            num_classes: K; by default the number of names, or the largest label plus one.
            classes: names of the classes, by label; by default of labels that are names the distinct ones, sorted.
            verified: images and labels that are known to be right, for `osd`; neither trained on nor scored.
            keys: names of the samples; by default their positions.
            roles: what `train` gave for the same samples, by role; what is missing is trained.

        Raises:
            ConfigError: a score needs what is not given.
            InputError: the arrays do not fit.
        """
        given = read_samples(images, labels, keys, num_classes, classes)
        config = on_images(self._tree, len(given.classes), given.images.shape[1])
        if "inn" in config.score_names() and config.inn.file is not None:
            raise ConfigError(f"inn.features {config.inn.features}: files are for runs; name a role, or self")
        if "osd" in config.score_names() and verified is None:
            raise ConfigError("score osd needs verified samples: fit(..., verified=(images, labels))")
        known = None if verified is None else read_verified_samples(verified, given)
        with torch_settings_kept():
            found = score(begin(config, given, self._device, known), roles or {})
        return self._scored_by(found, given.classes)

    def fit_features(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        keys: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        num_classes: int | None = None,
        groups: ArrayLike | None = None,
        verified: ArrayLike | Mapping[int, int | str] | None = None,
        heads: HeadSettings | None = None,
    ) -> LabelScorer:
        """Scores labels by features of a network that is there: seconds, and no image is read.

        Linear heads learn the labels in folds, so that each row is judged by heads that have not seen its label.
        Scores: those of trajectories, `iofm_last`, `vote` and `odd` by default, any but `osd` where they are named; and
        always `loss_oof` and `margin_oof`.

        Args:
            features: (N, d) of any network, for any images; scale and units matter no more than a seed does.
            labels: (N,) whole numbers from 0, or names of classes.
            keys: names of the samples; by default their positions.
            classes: names of the classes, by label; by default of labels that are names the distinct ones, sorted.
            num_classes: K; by default the number of names, or the largest label plus one.
            groups: (N,) what belongs together, such as frames of a clip: no row is judged by others of its group. Rows
                of equal features belong together anyway.
            verified: labels that people have verified, by position: a mapping, or (N,) with -1 where nobody has looked;
                `drop` or -2 says that no class is right.
            heads: how heads learn; by default as the section `train` says.

        Raises:
            ConfigError: a score needs more than features.
            InputError: something does not fit; it names the first place, and what to do.
        """
        num_rows = len(as_items(labels, "labels"))
        given, label_names = read_labels(labels, num_rows, num_classes, classes)
        values, names_of = read_stored_features(features, num_rows), read_keys(keys, num_rows)
        together = None if groups is None else read_keys(groups, num_rows, "groups")
        known = read_verified_labels(verified, num_rows, label_names)
        config = on_features(self._tree, len(label_names), heads)
        with torch_settings_kept():
            run = begin_features(config, values, given, names_of, together, self._device, known)
            found = score(run, {})
        for name, doubt in found.summary.get("doubts", {}).items():
            warnings.warn(f"{name}: {doubt}", stacklevel=2)
        return self._scored_by(found, label_names)

    def _scored_by(self, found: Scored, classes: list[str]) -> LabelScorer:
        self._scored, self.classes_, self.labels_, self._scores = found, classes, found.table, found.scores
        self.summary_, self.seconds_ = found.summary, found.seconds
        return self

    def fit_predictions(
        self,
        labels: ArrayLike,
        pred_probs: ArrayLike,
        features: ArrayLike | None = None,
        keys: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        logits: bool = False,
        out_of_fold: bool = True,
        verified: ArrayLike | Mapping[int, int | str] | None = None,
    ) -> LabelScorer:
        """Scores labels by another model's output: `loss` and `margin`, and with features `vote`.

        Arguments are arrays, lists, tables or tensors, and are read by position, whatever a Series' index.

        Args:
            labels: (N,) whole numbers from 0, or names of classes.
            pred_probs: (N, K) probabilities, as cleanlab takes them.
            features: (N, d) of any layer; where all rows are equal they are left out, with a warning.
            keys: names of the samples; by default their positions.
            classes: names of the K classes, in the order of the columns of `pred_probs`; by default of labels that are
                names the distinct ones, sorted, which must then be K.
            logits: whether `pred_probs` are logits, or logarithms of probabilities.
            out_of_fold: whether each row's probabilities come from a model that has not learned its label, as
                cross-validation gives them. Where they agree with the labels as if they had, they are taken so, with a
                warning.
            verified: see `fit_features`.

        Raises:
            ConfigError: a score needs what is not given.
            InputError: something does not fit; it names the first place, and what to do.
        """
        belief = read_probabilities(pred_probs, logits)
        num_rows, num_classes = belief.shape
        given, label_names = read_labels(labels, num_rows, num_classes, classes)
        check_columns(pred_probs, label_names)
        space = None if features is None else told_apart(read_features(features, num_rows))
        names_of, known = read_keys(keys, num_rows), read_verified_labels(verified, num_rows, label_names)
        possible = ("loss", "margin") if space is None else ("loss", "margin", "vote")
        config = on_predictions(self._tree, num_classes, possible)
        digests = [pixel_digest(np.array(i)) for i in range(num_rows)]  # without pixels none is known as a copy
        samples = Samples.make(given, digests, names_of)
        scored = score_predictions(config, samples, belief, space)
        fitted, block = fit_predicted(config, samples, scored, out_of_fold, known)
        return self._finish(config, samples, names_of, label_names, block, fitted, known)

    def _finish(
        self,
        config: Config,
        samples: Samples,
        keys: list[str],
        classes: list[str],
        block: BlockScores,
        fitted: Fitted,
        verified: Array,
    ) -> LabelScorer:
        self._scored = None
        self._scores = dict(block.scores)
        self.classes_ = classes
        self.labels_, self.summary_ = merged(config, samples, keys, block, fitted, verified)
        return self

    def score_samples(self, name: str) -> Array:
        """One score of all samples, (N,) float64, higher = cleaner; NaN where undefined.

        Raises:
            ConfigError: it was not computed.
        """
        if name not in self._scores:
            raise ConfigError(f"score '{name}' was not computed; there are: {', '.join(self._scores) or 'none yet'}")
        return self._scores[name]

    def score_epochs(self, name: str) -> Iterator[tuple[int, Array]]:
        """One score as of each epoch: for curves, and to see from where on a network memorises its labels.

        Trajectory scores have all epochs of their role, `iofm` and `iofm_last` the snapshots (only the last one
        without the score `iofm`), `odd` all epochs as if each were its own, others those that their sections name.

        Yields:
            Epochs, ascending, and (N,) values; but for `odd` the last ones are those of `score_samples`.

        Raises:
            ConfigError: it was not computed.
        """
        self.score_samples(name)
        if self._scored is not None:
            yield from self._scored.by_epoch(name)
