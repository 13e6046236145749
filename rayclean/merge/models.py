"""What turns the scores of rows into `label_score` and a prediction: one score's mixture, or the joint model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from rayclean.arrays import Array
from rayclean.merge.joint import JointModel, Near, Posterior, fit_joint
from rayclean.merge.mixture import Kind, ScoreMixture, fit_mixture
from rayclean.schema import JOINT, SCORES
from rayclean.scores.block import BlockScores
from rayclean.storage.draws import uniform

Model: TypeAlias = ScoreMixture | JointModel

NEAR_ROWS = 4000
MAX_NUMBERS = 2**25  # beliefs that a fit holds: 256 MiB


def fit_rows(name: str, sample_rows: int, num_classes: int) -> int:
    """How many rows a model is fitted to: `merge.sample_rows`, fewer where beliefs over many classes are large."""
    return min(sample_rows, MAX_NUMBERS // num_classes) if name == JOINT else sample_rows


def is_near_row(seed: int, draws: Array, num_rows: int) -> Array:
    """Marks about `NEAR_ROWS` rows, (N,) bool, that the joint model measures its lean on."""
    return np.asarray(uniform(seed, "merge.near", draws) < NEAR_ROWS / num_rows)


def fit_model(name: str, blocks: Sequence[BlockScores], given: Array, near: Near | None = None) -> Model:
    """Fits the model of `merge.score`.

    Args:
        name: of a score, or `joint`.
        blocks: a random part of the rows, in pieces.
        given: (N,) labels of all of them.
        near: for the joint model; None where rows have no neighbours.
    """
    if name == JOINT:
        return fit_joint(np.concatenate([block.belief for block in blocks]), given, near)
    values, one_minus = zip(*(mixture_input(name, block) for block in blocks), strict=True)
    rest = None if one_minus[0] is None else np.concatenate(one_minus)
    kind: Kind = "gauss" if SCORES[name].mixture == "gauss" else "beta"
    return fit_mixture(np.concatenate(values), kind, one_minus=rest)


def judge(model: Model, name: str, block: BlockScores, given: Array) -> Posterior:
    """What a model makes of rows; without a joint model the prediction is that of the belief alone."""
    if isinstance(model, JointModel):
        return model.posterior(block.belief, given)
    predicted = block.belief.argmax(axis=1)
    score = block.belief[np.arange(len(predicted)), predicted].astype(np.float32)
    return Posterior(model.probability(*mixture_input(name, block)), predicted, score)


def mixture_input(name: str, block: BlockScores) -> tuple[Array, Array | None]:
    """What a score's mixture is fitted to and applied to: the score, and 1 - score where that is known."""
    values = block.scores[name]
    if SCORES[name].mixture == "exp":
        return np.exp(values), -np.expm1(values)
    return values, block.one_minus.get(name)


def to_json(name: str, model: Model) -> dict[str, Any]:
    """A file's content."""
    return {"score": name, "model": model.to_json()}


def from_json(fields: Mapping[str, Any]) -> tuple[str, Model]:
    """The score's name and the model of a file's content."""
    kind: type[JointModel] | type[ScoreMixture] = JointModel if fields["score"] == JOINT else ScoreMixture
    return fields["score"], kind.from_json(fields["model"])
