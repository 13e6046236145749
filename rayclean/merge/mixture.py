"""One score, two components, clean and noisy: how the papers turn a score into P(label right).

INN (appendix D.1) fits two beta components to its score, DivideMix two Gaussians to the losses. Both are fit
in scores/em.py, and published through the strictly increasing map of monotone.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rayclean.merge.monotone import SLOPE_FLOOR, fit_log_odds, log_features, probability
from rayclean.scores.em import BETA, GAUSS, TwoComponents, fit_two_components

Float64 = NDArray[np.float64]
Kind = Literal["beta", "gauss"]

MIN_ROWS = 10
# Beta scores nearer to 0 or 1 are moved here for the fit only (as in Arazo et al.'s code).
FIT_MARGIN = 1e-4
# A sum of float32 probabilities may pass 0 or 1 by this much.
ROUNDING = 1e-6
# Standard deviation, relative to the largest score, up to which scores count as constant.
CONSTANT = 1e-9
MAX_OVERLAP = 0.5


@dataclass(frozen=True)
class ScoreMixture:
    """Two fit components and the increasing map; higher scores are cleaner.

    log-odds = intercept + slope_low * log s - slope_high * log(1 - s) for `beta`,
    log-odds = intercept + slope_low * s for `gauss`; both slopes are 0 where only the prior can be published.

    `overlap` is the number of rows that the map puts on the wrong side of .5, were the responsibilities true,
    over the number of rows of the smaller component: 0 for components apart, 1 or more where the map knows no
    more than which one is larger. `reliable` is overlap <= .5; else `reason` says why not. Even then the
    noise rate is rough (methods, section 4: .47 for a true .27).
    """

    kind: Kind
    num_rows: int  # of the fit
    noise_rate: float  # weight of the noisy component; .5 where nothing could be fit
    intercept: float
    slope_low: float
    slope_high: float
    clean_mean: float
    clean_shape: float  # a + b (beta) or standard deviation (gauss)
    noisy_mean: float
    noisy_shape: float
    overlap: float
    reliable: bool
    reason: str

    def probability(self, scores: Float64, one_minus: Float64 | None = None) -> NDArray[np.float32]:
        """Return P(label right), increasing in the score as strictly as float32 allows.

        Args:
            scores: (N,) of the kind that was fit; NaN where undefined.
            one_minus: (N,) 1 - s without cancellation: it keeps apart scores that are 1 to float64.

        Returns:
            (N,) float32 in [3e-7, 1 - 3e-7]; the prior, 1 - noise_rate, where the score is undefined.

        Raises:
            ValueError: a beta score lies outside [0, 1].
        """
        scores = np.asarray(scores, dtype=np.float64)
        prior = np.float32(1.0 - self.noise_rate)
        features = _features(scores, self.kind, one_minus)
        if self.slope_low == 0.0 and self.slope_high == 0.0:
            return np.full(len(scores), prior, dtype=np.float32)
        log_odds = self.intercept + self.slope_low * features[:, 0]
        if self.kind == "beta":
            log_odds += self.slope_high * features[:, 1]
        return np.where(np.isnan(scores), prior, probability(log_odds))

    def to_json(self) -> dict[str, Any]:
        """Return the fields, all plain."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ScoreMixture:
        """Rebuild from `to_json`, also through JSON text: equal bit for bit."""
        return cls(**fields)


def fit_mixture(scores: Float64, kind: Kind, *, one_minus: Float64 | None = None) -> ScoreMixture:
    """Fit two components to a score, and the increasing map from it to P(label right).

    Nothing is random, and the order of the rows does not matter.

    Args:
        scores: (N,) higher = cleaner; in [0, 1] for `beta`. Rows that are NaN or infinite are left out.
        kind: `beta`, or `gauss` for unbounded scores (aum, margin, -loss). Where most losses are near 0, only
            the beta score exp(-loss), with one_minus = -expm1(-loss), keeps their order in float32.
        one_minus: (N,) 1 - s without cancellation.

    Raises:
        ValueError: a beta score lies outside [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    features = _features(scores, kind, one_minus)[np.isfinite(scores)]
    if kind == "beta":
        features = _away_from_ends(features)
    # Sorted, so that sums have one order whatever that of the rows.
    features = features[np.lexsort(features.T)]
    # Of the features as they were cut, so that moments and densities are of the same scores.
    values = np.exp(features[:, 0]) if kind == "beta" else features[:, 0]
    if len(values) < MIN_ROWS:
        return _prior_only(kind, len(values), f"{len(values)} scores, {MIN_ROWS} are needed")
    centre, scale = float(values.mean()), float(values.std())
    if scale <= CONSTANT * float(np.abs(values).max()):
        return _prior_only(kind, len(values), f"all scores are about {centre:.6g}")
    if kind == "beta":
        return _published(kind, features, fit_two_components(values, features, BETA), 0.0, 1.0)
    # The floor under a component's variance (em.MIN_VARIANCE) is absolute: it is meant for scores of variance 1.
    standard = (values - centre) / scale
    fit = fit_two_components(standard, standard[:, None], GAUSS)
    return _published(kind, standard[:, None], fit, centre, scale)


def _features(scores: Float64, kind: Kind, one_minus: Float64 | None) -> Float64:
    """Return (N, F) features in which log-odds are linear and increasing."""
    if kind == "gauss":
        return scores[:, None]
    outside = (scores < -ROUNDING) | (scores > 1.0 + ROUNDING)
    if outside.any():
        raise ValueError(
            f"{outside.sum()} beta scores outside [0, 1], the first is {scores[outside][0]}: use kind 'gauss'"
        )
    rest = None if one_minus is None else np.clip(np.asarray(one_minus, dtype=np.float64), 0.0, 1.0)
    return log_features(np.clip(scores, 0.0, 1.0), rest)


def _away_from_ends(features: Float64) -> Float64:
    low, high = math.log(FIT_MARGIN), math.log1p(-FIT_MARGIN)
    return np.clip(features, [low, -high], [high, -low])


def _published(kind: Kind, features: Float64, fit: TwoComponents, centre: float, scale: float) -> ScoreMixture:
    """Fit the increasing line, judge it, and return to the units of the score (centre + scale * feature)."""
    intercept, slopes = fit_log_odds(features, fit.responsibilities)
    flat = bool(np.all(slopes <= SLOPE_FLOOR))
    if flat:
        intercept, slopes = math.log(fit.clean_weight / (1.0 - fit.clean_weight)), np.zeros_like(slopes)
    overlap = _overlap(intercept + features @ slopes, fit.responsibilities)
    reason = f"the components overlap ({overlap:.2f})" if overlap > MAX_OVERLAP else ""
    slope_low = float(slopes[0]) / scale
    return ScoreMixture(
        kind=kind,
        num_rows=len(features),
        noise_rate=1.0 - fit.clean_weight,
        intercept=intercept - slope_low * centre,
        slope_low=slope_low,
        slope_high=float(slopes[1]) if kind == "beta" else 0.0,
        clean_mean=centre + scale * fit.clean.mean,
        clean_shape=scale * fit.clean.shape,
        noisy_mean=centre + scale * fit.noisy.mean,
        noisy_shape=scale * fit.noisy.shape,
        overlap=overlap,
        reliable=not (flat or reason),
        reason="no increasing map fits the components" if flat else reason,
    )


def _overlap(log_odds: Float64, responsibilities: Float64) -> float:
    """Return the expected number of rows on the wrong side of log-odds 0, over the smaller component."""
    wrong = np.where(log_odds > 0.0, 1.0 - responsibilities, responsibilities).mean()
    clean_share = responsibilities.mean()
    return float(wrong / min(clean_share, 1.0 - clean_share))


def _prior_only(kind: Kind, num_rows: int, reason: str) -> ScoreMixture:
    """Know nothing: probability .5, which flags no row."""
    return ScoreMixture(
        kind=kind,
        num_rows=num_rows,
        noise_rate=0.5,
        intercept=0.0,
        slope_low=0.0,
        slope_high=0.0,
        clean_mean=0.0,
        clean_shape=0.0,
        noisy_mean=0.0,
        noisy_shape=0.0,
        overlap=1.0,
        reliable=False,
        reason=reason,
    )
