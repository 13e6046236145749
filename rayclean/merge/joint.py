"""The joint model: which class a row truly has, by what is believed of it and by how labels go wrong [our choice].

What the given label says of the true one is a transition matrix T that all rows share:

    U_i[k] = log B_i[k] - log b_k                       b the mean belief (logit adjustment)
    T[k, y] = P(given y | true k)
    q_i(k) ~ (1 - none) prior_k exp(sharpness U_i[k]) T[k, y_i]
    q_i(none) ~ none exp(sharpness R_i) shares[y_i]     R_i = log(1 - largest share of exp U_i), less its usual value
    logit label_score = center + temper (logit q_i(y_i) - center)

A belief that has seen y_i leans to it, so U_i[y_i] is first lowered by `lean`. A score that looks at the given label's
entry alone forgets the class: under noise that turns cats into dogs, few labels but these two are ever wrong.

`rayclean.merge.anchors` fits it to beliefs that have seen the labels, `rayclean.merge.blind` to those that have not.
docs/methods.md, section 8, has what the settings were chosen by.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from rayclean.merge.calibration import NO_CALIBRATION, Calibration
from rayclean.merge.monotone import probability
from rayclean.merge.transition import adjusted, unclaimed
from rayclean.schema import DROPPED, NONE_OF_CLASSES
from rayclean.scores.sources import LAST, Sources

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]

MEMORISED = 0.97  # agreement from which on nothing is to be learned of the labels


class Posterior(NamedTuple):
    """What is believed of rows.

    Attributes:
        label_score: (N,) float32, P(given label is right), bounded as a mixture's is.
        predicted: (N,) int64, the most likely class, `NONE_OF_CLASSES` where that is none of them.
        predicted_score: (N,) float32, its probability.
        seen: (N, K) float64, what is believed without the row's own label.
        whole: (N, K + 1) float64 probabilities of the classes and of none of them; None but by the joint model.
    """

    label_score: NDArray[np.float32]
    predicted: Ints
    predicted_score: NDArray[np.float32]
    seen: Float64
    whole: Float64 | None = None

    def confirmed(self, given: Ints, verified: Ints) -> Posterior:
        """The same, where people know better.

        Args:
            given: (N,) labels.
            verified: (N,) those that are known to be right, `NO_LABEL` where none is, `DROPPED` where no class is.
        """
        dropped = verified == DROPPED
        looked_at = (verified >= 0) | dropped
        return Posterior(
            np.where(looked_at, verified == given, self.label_score).astype(np.float32),
            np.where(looked_at, np.where(dropped, NONE_OF_CLASSES, verified), self.predicted),
            np.where(looked_at, 1, self.predicted_score).astype(np.float32),
            self.seen,
            None if self.whole is None else _known(self.whole, looked_at, verified),
        )

    def counts(self, given: Ints) -> Float64 | None:
        """(K + 1, K) rows truly of each class, none of them last, by given label (N,); None but by the joint model."""
        if self.whole is None:
            return None
        found = np.zeros((self.whole.shape[1], self.whole.shape[1] - 1))
        np.add.at(found.T, given, self.whole)
        return found


def _known(whole: Float64, looked_at: NDArray[np.bool_], verified: Ints) -> Float64:
    """Probabilities (N, K + 1) where people have looked at some rows."""
    result = whole.copy()
    rows = np.flatnonzero(looked_at)
    result[rows] = 0
    result[rows, np.where(verified[rows] == DROPPED, whole.shape[1] - 1, verified[rows])] = 1
    return result


@dataclass(frozen=True)
class JointModel:
    """A fitted model.

    Attributes:
        log_mean: (K,) log b.
        transition: (K, K) T, rows are true classes and sum to 1.
        prior: (K,) of the true classes, sums to 1.
        sharpness: how much more the belief counts than it says.
        lean: of the belief to the row's own label, in units of U.
        num_rows: that it was fitted on.
        num_anchors: rows that T was counted on.
        agreement: share of rows whose belief is surest of the given label.
        sources: whose beliefs it was fitted to.
        num_compared: snapshots that these were chosen from.
        none: weight of none of the classes, beside 1 - none for the classes' priors.
        unclaimed: usual value of the logarithm of what a row's likeliest class leaves.
        shares: (K,) of the given labels: what labels rows of none of the classes get; sums to 1.
        temper: of the log-odds of the given label; below 1 where belief and label err together.
        center: log-odds of a label that nothing is known of; what is tempered goes there.
        blind: whether the beliefs have not seen the labels.
        noise: the least and the largest share of wrong labels that the beliefs admit; None where that is not known.
        doubt: why the beliefs are not to be relied on, whatever the rest says; empty where they are.
    """

    log_mean: Float64
    transition: Float64
    prior: Float64
    sharpness: float
    lean: float
    num_rows: int
    num_anchors: int
    agreement: float
    sources: Sources = LAST
    num_compared: int = 1
    none: float = 0.0
    unclaimed: float = 0.0
    shares: Float64 | None = None
    temper: float = 1.0
    center: float = 0.0
    blind: bool = False
    noise: tuple[float, float] | None = None
    doubt: str = ""

    @property
    def reliable(self) -> bool:
        """Whether the beliefs say anything of the labels that these do not say themselves."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it is not reliable, empty where it is.

        Labels that are nearly all right look like memorised ones at one snapshot; earlier ones tell them apart, and
        what is blind to the labels memorises nothing.
        """
        if self.doubt or self.blind or self.agreement < MEMORISED or self.num_compared > 1:
            return self.doubt
        return (
            f"beliefs agree with {self.agreement:.0%} of the labels, as where a network has memorised them, and no "
            "earlier snapshot is scored (score iofm) that could tell"
        )

    def posterior(self, beliefs: Float64, given: Ints, calibration: Calibration = NO_CALIBRATION) -> Posterior:
        """Judges rows.

        Args:
            beliefs: (N, K) not negative; a row without any belief counts as one that is equally sure of all.
            given: (N,) labels.
            calibration: of the log-odds that the given label is right; the other classes share what is left as before.
        """
        log_seen = self._log_seen(beliefs, given)
        log_q = self._normalized(log_seen + self._log_labels(given))
        log_odds = _log_odds(log_q, given)
        moved = calibration(self._tempered(log_odds))
        rows = np.arange(len(given))
        # The other classes share what the given label leaves, in the proportions of their own tempered posteriors.
        log_q[rows, given] = -np.inf
        log_q *= self.temper
        with np.errstate(invalid="ignore"):  # of one class alone there are no others
            # log(1 - p) from the log-odds: from p itself it would be lost where p rounds to 1.
            log_q += (scipy.special.log_expit(-moved) - scipy.special.logsumexp(log_q, axis=1))[:, None]
        log_q[rows, given] = scipy.special.log_expit(moved)
        np.nan_to_num(log_q, copy=False, nan=-np.inf, neginf=-np.inf)
        predicted = log_q.argmax(axis=1)
        at_predicted = np.exp(log_q[np.arange(len(given)), predicted]).astype(np.float32)
        seen = np.exp(self._normalized(log_seen)[:, :-1])
        named = np.where(predicted == len(self.prior), NONE_OF_CLASSES, predicted)
        return Posterior(probability(moved), named, at_predicted, seen, np.exp(log_q))

    def log_odds(self, beliefs: Float64, given: Ints) -> Float64:
        """(N,) log-odds that the given labels are right, as in `posterior` before any calibration."""
        return self._tempered(_log_odds(self.log_posterior(beliefs, given), given))

    def _tempered(self, log_odds: Float64) -> Float64:
        return self.center + self.temper * (log_odds - self.center)

    def log_posterior(self, beliefs: Float64, given: Ints) -> Float64:
        """(N, K + 1) log q before it is tempered, none of the classes last; each row's exponentials sum to 1."""
        return self._normalized(self._log_seen(beliefs, given) + self._log_labels(given))

    def _log_seen(self, beliefs: Float64, given: Ints) -> Float64:
        """(N, K + 1) what is believed without the row's label, not normalized."""
        belief = adjusted(beliefs, self.log_mean)
        belief[np.arange(len(given)), given] -= self.lean
        nothing = np.full(len(belief), -np.inf)
        if self.none:
            nothing = self.sharpness * (unclaimed(belief) - self.unclaimed) + np.log(self.none)
        belief *= self.sharpness
        belief += np.log(self.prior) + np.log1p(-self.none)
        return np.concatenate([belief, nothing[:, None]], axis=1)

    def _log_labels(self, given: Ints) -> Float64:
        """(N, K + 1) log P(given label | true class), none of the classes last."""
        # Models without shares have no rows of none of the classes (`none` is 0), so any would do.
        shares = np.full(len(self.prior), 1 / len(self.prior)) if self.shares is None else self.shares
        result: Float64 = np.log(np.vstack([self.transition, shares]))[:, given].T
        return result

    @staticmethod
    def _normalized(log_weights: Float64) -> Float64:
        result: Float64 = log_weights - scipy.special.logsumexp(log_weights, axis=1, keepdims=True)
        return result

    def to_json(self) -> dict[str, Any]:
        """The fields, all plain."""
        fields = {name: _plain(value) for name, value in vars(self).items() if name != "sources"}
        return fields | {"sources": self.sources.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> JointModel:
        """Rebuilds from `to_json`, also through JSON text: equal bit for bit."""
        arrays: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()}
        sources, noise = Sources.from_json(fields["sources"]), fields.get("noise")
        return cls(**arrays | {"sources": sources, "noise": None if noise is None else tuple(noise)})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else np.asarray(value).tolist()


def _log_odds(log_q: Float64, given: Ints) -> Float64:
    rows = np.arange(len(given))
    others = log_q.copy()
    others[rows, given] = -np.inf
    # 1 - q(y) is the sum of the others, which keeps its digits where q(y) rounds to 1.
    result: Float64 = log_q[rows, given] - scipy.special.logsumexp(others, axis=1)
    return result
