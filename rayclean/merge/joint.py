"""The joint model: which class a row truly has, by the network's belief and by how labels go wrong [our choice].

A row's belief B over the classes comes from paths between rows, so it is not just a memory of its own label. What the
given label says of the true one is a transition matrix T that all rows share, counted where the belief is surest:

    U_i[k] = log B_i[k] - log b_k                       b the mean belief (logit adjustment)
    T[k, y] = P(given y | true k)                       from the rows whose U is surest of k, pooled over the classes
    q_i(k) ~ prior_k exp(sharpness U_i[k]) T[k, y_i]    label_score = q_i(y_i)

where U_i[y_i] is first lowered by `lean`: the network has seen y_i, and its belief leans to it. How much, the near rows
tell, which have not seen it. It moves all log-odds alike, so no order by label_score changes, only what it says.

A score that looks at the given label's entry alone forgets the class: under noise that turns cats into dogs, few labels
but these two are ever wrong. docs/methods.md, section 8, has what the settings were chosen by.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_expit, logsumexp

from rayclean.arrays import Array
from rayclean.merge.calibration import NO_CALIBRATION, Calibration
from rayclean.merge.monotone import probability
from rayclean.merge.near import Near, learned_share, near_counts, noise_ratio, own_lean
from rayclean.merge.transition import adjusted, find_anchors, noisier, pooled_transition, surest
from rayclean.scores.sources import BELIEF_FLOOR, LAST, Sources

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]

SHARPNESS = 2.0
RAISED_ROWS = 10_000  # that the lean is raised by
MAX_LEAN = 20.0
ROWS_AT_ONCE = 4096  # in a fit; what is computed of the sample takes no memory to speak of beside it
MEMORISED = 0.97  # agreement from which on nothing is to be learned of the labels
DROPPED = -2  # in place of a verified label: people say that the row is of none of the classes
DROP = "drop"  # how people write that, where no class is called so


class Posterior(NamedTuple):
    """What is believed of rows.

    Attributes:
        label_score: (N,) float32, P(given label is right), bounded as a mixture's is.
        predicted: (N,) int64, the most likely class.
        predicted_score: (N,) float32, its probability.
        seen: (N, K) float64, what is believed without the row's own label.
    """

    label_score: NDArray[np.float32]
    predicted: Ints
    predicted_score: NDArray[np.float32]
    seen: Float64

    def confirmed(self, given: Ints, verified: Ints) -> Posterior:
        """The same, where people know better.

        Args:
            given: (N,) labels.
            verified: (N,) those that are known to be right, -1 where none is; where `DROPPED` says that no class is
                right the prediction stays, with probability 0.
        """
        known = verified >= 0
        looked_at = known | (verified == DROPPED)
        return Posterior(
            np.where(looked_at, verified == given, self.label_score).astype(np.float32),
            np.where(known, verified, self.predicted),
            np.where(looked_at, known, self.predicted_score).astype(np.float32),
            self.seen,
        )


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

    @property
    def reliable(self) -> bool:
        """Whether the beliefs say anything of the labels that these do not say themselves.

        Labels that are nearly all right look like memorised ones at one snapshot; earlier ones tell them apart.
        """
        return self.agreement < MEMORISED or self.num_compared > 1

    @property
    def reason(self) -> str:
        """Why it is not reliable, empty where it is."""
        text = (
            f"beliefs agree with {self.agreement:.0%} of the labels, as where a network has memorised them, and no "
            "earlier snapshot is scored (score iofm) that could tell"
        )
        return "" if self.reliable else text

    def posterior(self, beliefs: Float64, given: Ints, calibration: Calibration = NO_CALIBRATION) -> Posterior:
        """Judges rows.

        Args:
            beliefs: (N, K) not negative; a row without any belief counts as one that is equally sure of all.
            given: (N,) labels.
            calibration: of the log-odds that the given label is right; the other classes share what is left as before.
        """
        log_seen = self._log_seen(beliefs, given)
        log_q = self._log_posterior(log_seen, given)
        log_odds = _log_odds(log_q, given)
        moved = calibration(log_odds)
        if calibration != NO_CALIBRATION:
            log_q += (log_expit(-moved) - log_expit(-log_odds))[:, None]
            log_q[np.arange(len(given)), given] = log_expit(moved)
        predicted = log_q.argmax(axis=1)
        at_predicted = np.exp(log_q[np.arange(len(given)), predicted]).astype(np.float32)
        seen = np.exp(log_seen - logsumexp(log_seen, axis=1, keepdims=True))
        return Posterior(probability(moved), predicted, at_predicted, seen)

    def log_odds(self, beliefs: Float64, given: Ints) -> Float64:
        """(N,) log-odds that the given labels are right, as in `posterior` before any calibration."""
        return _log_odds(self.log_posterior(beliefs, given), given)

    def log_posterior(self, beliefs: Float64, given: Ints) -> Float64:
        """(N, K) log q; each row's exponentials sum to 1."""
        return self._log_posterior(self._log_seen(beliefs, given), given)

    def _log_seen(self, beliefs: Float64, given: Ints) -> Float64:
        belief = adjusted(beliefs, self.log_mean)
        belief[np.arange(len(given)), given] -= self.lean
        belief *= self.sharpness
        belief += np.log(self.prior)
        return belief

    def _log_posterior(self, log_seen: Float64, given: Ints) -> Float64:
        log_joint = log_seen + np.log(self.transition)[:, given].T
        result: Float64 = log_joint - logsumexp(log_joint, axis=1, keepdims=True)
        return result

    def to_json(self) -> dict[str, Any]:
        """The fields, all plain."""
        fields = {name: np.asarray(value).tolist() for name, value in vars(self).items() if name != "sources"}
        return fields | {"sources": {"epoch": self.sources.epoch, "roles": list(self.sources.roles)}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> JointModel:
        """Rebuilds from `to_json`, also through JSON text: equal bit for bit."""
        arrays: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()}
        sources = Sources(fields["sources"]["epoch"], tuple(fields["sources"]["roles"]))
        return cls(**arrays | {"sources": sources})


def _log_odds(log_q: Float64, given: Ints) -> Float64:
    rows = np.arange(len(given))
    others = log_q.copy()
    others[rows, given] = -np.inf
    # 1 - q(y) is the sum of the others, which keeps its digits where q(y) rounds to 1.
    result: Float64 = log_q[rows, given] - logsumexp(others, axis=1)
    return result


def fit_joint(beliefs: Float64, given: Ints, near: Near | None = None, noise_floor: float = 0.0) -> JointModel:
    """Fits T, the prior and the lean to rows; no truth is used, nothing is random.

    Which entries of T are large, and the prior, are those of the beliefs as they are: anchors by lowered ones cost
    asymmetric noise .05 AUROC. How large they are together, near rows tell; where anchors have been memorised, all.

    Args:
        beliefs: (N, K) of a random part of the rows.
        given: (N,) their labels.
        near: what the lean is measured on; without it there is none.
        noise_floor: the least share of wrong labels; the lean is raised until the model sees as many.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if beliefs.ndim != 2 or given.shape != beliefs.shape[:1] or not len(given):
        raise ValueError(f"beliefs (N, K) and labels (N,) expected, found {beliefs.shape} and {given.shape}")
    num_classes = beliefs.shape[1]
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(given), ROWS_AT_ONCE)]
    found = [surest(adjusted(beliefs[block], log_mean)) for block in blocks]
    top, gap = (np.concatenate(column) for column in zip(*found, strict=True))
    rows, classes = find_anchors(top, gap)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (classes, given[rows]), 1)
    model = JointModel(
        log_mean=log_mean,
        transition=pooled_transition(counts),
        prior=_shares(np.bincount(given, minlength=num_classes)),
        sharpness=SHARPNESS,
        lean=0.0,
        num_rows=len(given),
        num_anchors=len(rows),
        agreement=float((top == given).mean()),
    )
    # One step towards the prior that explains itself; more follow the network's confusion.
    explained = (np.exp(model.log_posterior(beliefs[block], given[block])).sum(axis=0) for block in blocks)
    prior = _shares(np.sum(list(explained), axis=0))
    model = replace(model, prior=prior)
    if near is not None:
        ratio = noise_ratio(near, log_mean)
        learned = learned_share(ratio)
        if learned:
            beside = near_counts(near, log_mean)
            own = counts * (beside.sum() / counts.sum())
            model = replace(model, transition=pooled_transition((1 - learned) * own + learned * beside))
            noise_floor = max(noise_floor, learned * float(1 - prior @ np.diag(model.transition)))
        transition = noisier(model.transition, ratio ** (1 - learned))
        model = replace(model, transition=transition, lean=own_lean(near, log_mean))
    return _raised(model, noise_floor, beliefs, given)


def _raised(model: JointModel, noise_floor: float, beliefs: Float64, given: Ints) -> JointModel:
    """The model with the least lean, not below its own, by which so many labels are wrong."""
    some = slice(None, None, -(-len(given) // RAISED_ROWS))

    def short(lean: float) -> float:
        found = replace(model, lean=lean).posterior(beliefs[some], given[some]).label_score
        return noise_floor - float(1 - found.mean(dtype=np.float64))

    if short(model.lean) <= 0 or short(model.lean + MAX_LEAN) > 0:
        return model
    return replace(model, lean=float(brentq(short, model.lean, model.lean + MAX_LEAN, xtol=1e-6)))


def _shares(counts: Array) -> Float64:
    """Shares of the classes, none of which is impossible."""
    positive = counts + 1 / len(counts)
    shares: Float64 = positive / positive.sum()
    return shares
