"""What turns the scores of rows into `label_score` and a prediction: one score's mixture, or the joint model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy

from rayclean.merge.anchors import fit_joint
from rayclean.merge.beside import LEAST_NEAR, believed, fit_beside
from rayclean.merge.calibration import NO_CALIBRATION, Calibration, fit_calibration
from rayclean.merge.joint import JointModel, Posterior
from rayclean.merge.mixture import Kind, ScoreMixture, fit_mixture
from rayclean.merge.near import Near, learned_share, noise_ratio
from rayclean.merge.trust import Agreement, Trust
from rayclean.schema import JOINT, Array
from rayclean.scores.block import BlockScores, joined
from rayclean.scores.sources import LAST, Sources
from rayclean.storage.draws import uniform

Model: TypeAlias = ScoreMixture | JointModel

NEAR_ROWS = 4000
NOISE_FACTOR = 1.6  # that noise rates may be off, of beliefs that have seen the labels
LEARNED = 2 / 3  # share of the anchors' labels that are learned by heart, from which on near rows are as little worth
DEVIATIONS = 2.0  # of what a sample of verified rows tells
MAX_NUMBERS = 2**25  # beliefs that a fit holds: 256 MiB


def fit_rows(name: str, sample_rows: int, num_classes: int) -> int:
    """How many rows a model is fitted to: `merge.sample_rows`, fewer where beliefs over many classes are large."""
    return min(sample_rows, MAX_NUMBERS // num_classes) if name == JOINT else sample_rows


def is_near_row(seed: int, draws: Array, num_rows: int) -> Array:
    """Marks about `NEAR_ROWS` rows, (N,) bool, that the joint model measures its lean on."""
    return np.asarray(uniform(seed, "merge.near", draws) < NEAR_ROWS / num_rows)


@dataclass(frozen=True)
class Fitted:
    """A fitted merge: what `FitJob` publishes.

    Attributes:
        name: of the score, or `joint`.
        trust: what the joint model's sources were chosen by; for people.
        doubts: why beliefs were left out, or are not to be relied on, by their names; for people.
    """

    name: str
    model: Model
    calibration: Calibration = NO_CALIBRATION
    trust: Trust | None = None
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> Sources:
        """Whose beliefs it is applied to."""
        return self.model.sources if isinstance(self.model, JointModel) else LAST

    def doubted(self, why: str) -> Fitted:
        """The same, not to be relied on; as it is where there is no reason or no joint model."""
        if not why or not isinstance(self.model, JointModel):
            return self
        return replace(self, model=replace(self.model, doubt=why))

    @property
    def calibrated_by(self) -> Literal["none", "verified"]:
        """What its probabilities are calibrated by."""
        return "verified" if self.calibration.num_verified else "none"

    def noise_interval(self, rate: float) -> tuple[float, float]:
        """The least and the largest share of wrong labels that are likely, where `rate` is found.

        Verified rows tell it as a sample does; without them it is as wide as beliefs that were judged by the truth
        have been wrong (docs/results/honest.md).
        """
        if self.calibration.num_verified:
            error = DEVIATIONS * math.sqrt(max(rate * (1 - rate), 0.0) / self.calibration.num_verified)
            return max(rate - error, 0.0), min(rate + error, 1.0)
        noise = self.model.noise if isinstance(self.model, JointModel) else None
        low, high = noise or (rate / NOISE_FACTOR, min(rate * NOISE_FACTOR, 1.0))
        return min(low, rate), max(high, rate)

    def judge(self, block: BlockScores, given: Array) -> Posterior:
        """What is made of rows; without a joint model the prediction is that of the belief alone."""
        if isinstance(self.model, JointModel):
            return self.model.posterior(self._believed(block), given, self.calibration)
        predicted = block.belief.argmax(axis=1)
        score = block.belief[np.arange(len(predicted)), predicted].astype(np.float32)
        right = self.model.probability(*mixture_input(self.name, block))
        # Probabilities of a mixture stay within 3e-7 of either end, so their log-odds are finite.
        if self.calibration != NO_CALIBRATION:
            right = scipy.special.expit(self.calibration(scipy.special.logit(right.astype(np.float64)))).astype(
                np.float32
            )
        return Posterior(right, predicted, score, block.belief)

    def _believed(self, block: BlockScores) -> Array:
        return believed(block.belief, block.near_labels, self.sources.near)

    def calibrated(self, block: BlockScores, given: Array, verified: Array) -> Fitted:
        """The same, calibrated by rows whose right labels `verified` (N,) are known."""
        if isinstance(self.model, JointModel):
            log_odds = self.model.log_odds(self._believed(block), given)
        else:
            log_odds = scipy.special.logit(self.model.probability(*mixture_input(self.name, block)).astype(np.float64))
        return replace(self, calibration=fit_calibration(log_odds, given == verified))

    def to_json(self) -> dict[str, Any]:
        """A file's content, all plain."""
        fields = {"score": self.name, "model": self.model.to_json(), "calibration": asdict(self.calibration)}
        if self.doubts:
            fields["doubts"] = dict(self.doubts)
        if self.trust is None:
            return fields
        floor = self.trust.noise_floor
        return fields | {
            "trust": {"noise_floor": floor, "epochs": _rows(self.trust.epochs), "roles": _rows(self.trust.roles)}
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fitted:
        """Of a file's content; without what the sources were chosen by, which only people read."""
        name = fields["score"]
        kind: type[JointModel] | type[ScoreMixture] = JointModel if name == JOINT else ScoreMixture
        doubts = fields.get("doubts", {})
        return cls(name, kind.from_json(fields["model"]), Calibration(**fields["calibration"]), doubts=doubts)


def _rows(found: Mapping[Any, Agreement]) -> list[dict[str, Any]]:
    return [{"source": source, **each._asdict()} for source, each in found.items()]


def fit_model(
    name: str, blocks: Sequence[BlockScores], given: Array, near: Near | None = None, trust: Trust | None = None
) -> Fitted:
    """Fits the model of `merge.score`.

    Args:
        name: of a score, or `joint`.
        blocks: a random part of the rows, in pieces.
        given: (N,) labels of all of them.
        near: for the joint model; None where rows have no neighbours.
        trust: likewise; what the blocks' beliefs were chosen by.
    """
    if name == JOINT:
        return Fitted(name, _fit_joint(joined(blocks), given, near, trust), trust=trust)
    values, one_minus = zip(*(mixture_input(name, block) for block in blocks), strict=True)
    rest = None if one_minus[0] is None else np.concatenate(one_minus)
    kind: Kind = "gauss" if blocks[0].kind(name).mixture == "gauss" else "beta"
    return Fitted(name, fit_mixture(np.concatenate(values), kind, one_minus=rest))


def _fit_joint(block: BlockScores, given: Array, near: Near | None, trust: Trust | None) -> JointModel:
    """The joint model, with near rows' labels beside the network's beliefs where no label is learned by heart."""
    floor = 0.0 if trust is None else trust.noise_floor
    model = fit_joint(block.belief, given, near, floor)
    if trust is None or near is None:
        return model
    labels, last = block.near_labels, max(trust.epochs)
    enough = labels is not None and (labels >= 0).sum(axis=1).mean() >= LEAST_NEAR
    # Rows are near by the last snapshot's features: where an earlier one is trusted, these have learned labels too.
    memorised = learned_share(noise_ratio(near, model.log_mean)) > LEARNED or trust.sources.epoch != last
    if labels is not None and enough and not memorised:
        model = fit_beside(block.belief, labels, given)
    sources = replace(trust.sources, near=model.sources.near)
    return replace(model, sources=sources, num_compared=len(trust.epochs))


def mixture_input(name: str, block: BlockScores) -> tuple[Array, Array | None]:
    """What a score's mixture is fitted to and applied to: the score, and 1 - score where that is known."""
    values = block.scores[name]
    if block.kind(name).mixture == "exp":
        return np.exp(values), -np.expm1(values)
    return values, block.one_minus.get(name)
