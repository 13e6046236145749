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
from scipy.special import gammaln, logsumexp

from rayclean.arrays import Array
from rayclean.merge.monotone import probability

Float64 = NDArray[np.float64]
Ints = NDArray[np.integer]

ANCHOR_SHARE = 0.2  # small: a sure row carries little of the network's own confusion, which looks like noise
MIN_ANCHORS = 20
SHARPNESS = 2.0
BELIEF_FLOOR = 1e-9
CLUMPING = 6.0  # 4 to 8 are within .001 AUROC of each other on the cells that it was chosen by
PSEUDO_COUNTS = np.geomspace(1, 1e5, 60).tolist()
LEAN_FACTOR = 2.0
MEMORISED = 0.97  # agreement from which on nothing is to be learned of the labels


class Near(NamedTuple):
    """Some rows and their nearest of any label: what `lean` is measured on.

    Attributes:
        beliefs: (M, K).
        neighbors: (M, J, K) beliefs of the nearest rows, NaN where there are fewer.
        given: (M,) labels of the rows.
    """

    beliefs: Float64
    neighbors: Float64
    given: Ints


class Posterior(NamedTuple):
    """What is believed of rows.

    Attributes:
        label_score: (N,) float32, P(given label is right), bounded as a mixture's is.
        predicted: (N,) int64, the most likely class.
        predicted_score: (N,) float32, its probability.
    """

    label_score: NDArray[np.float32]
    predicted: Ints
    predicted_score: NDArray[np.float32]


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
    """

    log_mean: Float64
    transition: Float64
    prior: Float64
    sharpness: float
    lean: float
    num_rows: int
    num_anchors: int
    agreement: float

    @property
    def reliable(self) -> bool:
        """Whether the beliefs say anything of the labels that these do not say themselves."""
        return self.agreement < MEMORISED

    @property
    def reason(self) -> str:
        """Why it is not reliable, empty where it is."""
        text = f"beliefs agree with {self.agreement:.0%} of the labels, as where a network has memorised them"
        return "" if self.reliable else text

    def posterior(self, beliefs: Float64, given: Ints) -> Posterior:
        """Judges rows.

        Args:
            beliefs: (N, K) not negative; a row without any belief counts as one that is equally sure of all.
            given: (N,) labels.
        """
        log_q = self.log_posterior(beliefs, given)
        rows = np.arange(len(given))
        at_label = log_q[rows, given]
        others = log_q.copy()
        others[rows, given] = -np.inf
        # 1 - q(y) is the sum of the others, which keeps its digits where q(y) rounds to 1.
        predicted = log_q.argmax(axis=1)
        return Posterior(
            probability(at_label - logsumexp(others, axis=1)),
            predicted,
            np.exp(log_q[rows, predicted]).astype(np.float32),
        )

    def log_posterior(self, beliefs: Float64, given: Ints) -> Float64:
        """(N, K) log q; each row's exponentials sum to 1."""
        belief = adjusted(beliefs, self.log_mean)
        belief[np.arange(len(given)), given] -= self.lean
        log_joint = self.sharpness * belief
        log_joint += np.log(self.prior) + np.log(self.transition)[:, given].T
        result: Float64 = log_joint - logsumexp(log_joint, axis=1, keepdims=True)
        return result

    def to_json(self) -> dict[str, Any]:
        """The fields, all plain."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> JointModel:
        """Rebuilds from `to_json`, also through JSON text: equal bit for bit."""
        arrays: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**arrays)


def adjusted(beliefs: Float64, log_mean: Float64) -> Float64:
    """U: (N, K) log beliefs less those of the mean row."""
    result: Float64 = np.log(np.asarray(beliefs, np.float64) + BELIEF_FLOOR) - log_mean
    return result


def find_anchors(belief: Float64, share: float = ANCHOR_SHARE, least: int = MIN_ANCHORS) -> tuple[Ints, Ints]:
    """The rows that are surest of each class: those of the largest gap between the two largest entries.

    Args:
        belief: (N, K) U.
        share: of the rows whose largest entry is k, that are anchors of k.
        least: anchors of k, where so many rows have it as their largest entry.

    Returns:
        Rows (A,), ascending, and the classes that they are sure of (A,). Ties go by row.
    """
    top = belief.argmax(axis=1)
    last_two = np.partition(belief, -2, axis=1)[:, -2:] if belief.shape[1] > 1 else np.zeros((len(belief), 2))
    gap = last_two[:, 1] - last_two[:, 0]
    chosen = []
    for k in np.unique(top):
        here = np.flatnonzero(top == k)
        count = max(min(least, len(here)), int(np.ceil(share * len(here))))
        chosen.append(here[np.argsort(-gap[here], kind="stable")[:count]])
    rows = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    return rows, top[rows]


def pooled_transition(counts: Float64) -> Float64:
    """T from counts of (sure of k, given y), drawn towards a matrix with one value on the diagonal and one beside it.

    How strongly, the counts themselves say: by the number of pseudo-counts under which they are likeliest. It is small
    where each class turns into one other, and large where noise is spread evenly and the rest is chance; small classes
    borrow in either case. It is taken `CLUMPING` times: anchors err together, where the network confuses two classes,
    so they say less than as many rows apart.

    Args:
        counts: (K, K).

    Returns:
        (K, K) rows sum to 1, no entry is 0.
    """
    num_classes, total = len(counts), counts.sum()
    # One more of each kind, so that no entry is 0: a label that no anchor has is rare, not impossible.
    right = (np.trace(counts) + 1) / (total + 2)
    pooled = np.full((num_classes, num_classes), (1 - right) / max(num_classes - 1, 1))
    np.fill_diagonal(pooled, right)
    weight = CLUMPING * max(PSEUDO_COUNTS, key=lambda pseudo: _evidence(counts, pooled, pseudo))
    result: Float64 = (counts + weight * pooled) / (counts.sum(axis=1, keepdims=True) + weight)
    return result


def _evidence(counts: Float64, mean: Float64, pseudo: float) -> float:
    """Log likelihood of rows of counts that are multinomial, with Dirichlet rates of this mean and concentration."""
    seen = counts > 0
    prior = pseudo * mean[seen]
    rows = counts.sum(axis=1)
    of_rows = gammaln(pseudo) - gammaln(pseudo + rows)
    return float(of_rows.sum() + (gammaln(prior + counts[seen]) - gammaln(prior)).sum())


def own_lean(near: Near, log_mean: Float64) -> float:
    """How much larger U_i is at the row's own label than its neighbours' U there, less the same at the other labels.

    Twice that, 0 or more: the neighbours' beliefs lean to their own labels, which are often the same.
    """
    own = adjusted(near.beliefs, log_mean)
    known = ~np.isnan(near.neighbors).any(axis=(1, 2))
    if not known.any() or own.shape[1] < 2:
        return 0.0
    excess = own[known] - adjusted(near.neighbors[known], log_mean).mean(axis=1)
    at_label = excess[np.arange(len(excess)), near.given[known]]
    beside = (excess.sum(axis=1) - at_label) / (own.shape[1] - 1)
    return max(0.0, LEAN_FACTOR * float((at_label - beside).mean()))


def fit_joint(beliefs: Float64, given: Ints, near: Near | None = None) -> JointModel:
    """Fits T, the prior and the lean to rows; no truth is used, nothing is random.

    T and the prior are those of the beliefs as they are: anchors by lowered ones cost asymmetric noise .05 AUROC.

    Args:
        beliefs: (N, K) of a random part of the rows.
        given: (N,) their labels.
        near: what the lean is measured on; without it there is none.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if beliefs.ndim != 2 or given.shape != beliefs.shape[:1] or not len(given):
        raise ValueError(f"beliefs (N, K) and labels (N,) expected, found {beliefs.shape} and {given.shape}")
    num_classes = beliefs.shape[1]
    log_mean = np.log(np.mean(beliefs, axis=0, dtype=np.float64) + BELIEF_FLOOR)
    belief = adjusted(beliefs, log_mean)
    rows, classes = find_anchors(belief)
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
        agreement=float((belief.argmax(axis=1) == given).mean()),
    )
    # One step towards the prior that explains itself; more follow the network's confusion.
    prior = _shares(np.exp(model.log_posterior(beliefs, given)).sum(axis=0))
    return replace(model, prior=prior, lean=0.0 if near is None else own_lean(near, log_mean))


def _shares(counts: Array) -> Float64:
    """Shares of the classes, none of which is impossible."""
    positive = counts + 1 / len(counts)
    shares: Float64 = positive / positive.sum()
    return shares
