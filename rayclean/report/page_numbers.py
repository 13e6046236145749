"""The arithmetic of the report's pages: which rows are shown, how a score is spread, how scores agree.

Letters: N rows (of a sample), K classes, S scores, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rayclean.config.score_families import score_of
from rayclean.merge.mixture import Kind, ScoreMixture, fit_mixture
from rayclean.schema import Array

BINS = 40
FIT_ROWS = 10_000
AGREEMENT_ROWS = 20_000
# Unbounded scores are drawn between these percentiles, what is beyond them in the outermost bins.
ENDS = (0.5, 99.5)
MAX_WHOLE = 60  # whole-numbered scores of no wider range get one bin per number
DOUBTFUL = 20  # rows of a class that are shown beside the flagged ones, at most
RIGHT, WRONG, NO_TRUTH = "right", "wrong", "no truth"


def fair_shares(total: int, counts: Array) -> Array:
    """Shares a total out evenly: whoever can take less than an even share gives the rest to the others.

    Args:
        total: at least 0.
        counts: (K,) int, what each can take at most.

    Returns:
        (K,) int64, at most `counts`; the sum is the smaller of `total` and the sum of `counts`. What is left after
        even shares goes to those with the most, of equals to the first.
    """
    counts = np.asarray(counts, np.int64)
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # the highest level that the total can fill
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= total else (low, middle - 1)
    shares: Array = np.minimum(counts, low)
    first = np.argsort(-counts, kind="stable")[: max(total - int(shares.sum()), 0)]
    shares[first] += counts[first] > low
    return shares


def shown_rows(top: int, rows: Array, issues: Array) -> Array:
    """How many of the worst rows of each class are shown: flagged ones, and if there is room a few doubtful others.

    Args:
        top: in all.
        rows: (K,) of each given label.
        issues: (K,) flagged ones of these.
    """
    flagged = fair_shares(top, issues)
    return flagged + fair_shares(top - int(flagged.sum()), np.minimum(rows - issues, DOUBTFUL))


class Worst:
    """The rows of the lowest scores of each class, of rows that come in pieces.

    Args:
        shares: (K,) how many of each.

    Attributes:
        rows: so far, by label and score.
    """

    def __init__(self, shares: Array) -> None:
        self.shares = shares
        self.rows, self._labels, self._scores = (np.empty(0, kind) for kind in (np.int64, np.int64, np.float64))
        self._highest = np.where(shares > 0, np.inf, -np.inf)  # of a class, that can still be among its worst

    def add(self, rows: Array, labels: Array, scores: Array) -> None:
        """Takes in rows (N,) with their given labels and scores."""
        low = scores <= self._highest[labels]
        rows, labels, scores = (
            np.concatenate(pair)
            for pair in ((self.rows, rows[low]), (self._labels, labels[low]), (self._scores, scores[low]))
        )
        order = np.lexsort((rows, scores, labels))
        rows, labels, scores = rows[order], labels[order], scores[order]
        place = np.arange(len(rows)) - np.searchsorted(labels, labels)
        last = place == self.shares[labels] - 1
        self._highest[labels[last]] = scores[last]
        kept = place < self.shares[labels]
        self.rows, self._labels, self._scores = rows[kept], labels[kept], scores[kept]


def percentiles(column: Array, values: Array) -> Array:
    """Where values stand in a column, ties counted half: (V,) float64, 0 (the least clean) to 100.

    Args:
        column: (N,) NaN where undefined.
        values: (V,); a NaN gives a NaN, and so does an empty column.
    """
    known = np.sort(column[~np.isnan(column)])
    if not len(known):
        return np.full(len(values), np.nan)
    below, up_to = (np.searchsorted(known, values, side) for side in ("left", "right"))
    return np.where(np.isnan(values), np.nan, 100 * (below + up_to) / (2 * len(known)))


def agreement(columns: Sequence[Array]) -> Array:
    """Spearman's rank correlation of each two scores, over the rows where both are defined.

    Args:
        columns: S of (N,), NaN where undefined; the first `AGREEMENT_ROWS` by stride are taken.

    Returns:
        (S, S) float64, -1 to 1; NaN where fewer than three rows have both or one of them is constant.
    """
    step = -(-len(columns[0]) // AGREEMENT_ROWS) if columns and len(columns[0]) else 1
    taken = [column[::step] for column in columns]
    result = np.full((len(taken), len(taken)), np.nan)
    for i, first in enumerate(taken):
        for j, second in enumerate(taken[: i + 1]):
            both = ~np.isnan(first) & ~np.isnan(second)
            a, b = first[both], second[both]
            if len(a) >= 3 and a.min() < a.max() and b.min() < b.max():
                result[i, j] = result[j, i] = stats.spearmanr(a, b).statistic
    return result


@dataclass(frozen=True)
class Spread:
    """A score's histogram beside the mixture that is fitted to it.

    Attributes:
        edges: (B+1,) of the bins, in what the mixture is fitted to: the score, or for minus a loss its exponential.
        is_exp: whether it is that exponential.
        counts: (B,) of the rows with right and wrong labels and of those with no truth; groups without rows are absent.
        clean: (B,) rows that the component of the larger mean expects; None where nothing could be fitted.
        noisy: (B,) those of the other one.
        undefined: rows without the score.
    """

    edges: Array
    is_exp: bool
    counts: dict[str, Array]
    clean: Array | None
    noisy: Array | None
    mixture: ScoreMixture
    undefined: int


def spread(name: str, column: Array, truth_groups: Mapping[str, Array]) -> Spread:
    """The histogram of a score and two components fitted to it, as the merge fits one score.

    Args:
        name: of the score.
        column: (N,) NaN where undefined.
        truth_groups: (N,) bool each, that together cover the rows.
    """
    is_exp, kind = score_of(name).mixture == "exp", score_of(name).mixture
    values = column.astype(np.float64)
    rest = -np.expm1(np.minimum(values, 0)) if is_exp else None
    values = np.exp(np.minimum(values, 0)) if is_exp else values
    defined = np.isfinite(values)
    step = max(-(-int(defined.sum()) // FIT_ROWS), 1)
    some = np.flatnonzero(defined)[::step]
    fit_kind: Kind = "gauss" if kind == "gauss" else "beta"
    mixture = fit_mixture(values[some], fit_kind, one_minus=None if rest is None else rest[some])
    edges = np.linspace(0, 1, BINS + 1) if fit_kind == "beta" else _edges(values[defined])
    inside = np.clip(values, edges[0], edges[-1])
    counts = {
        group: np.histogram(inside[defined & rows], edges)[0]
        for group, rows in truth_groups.items()
        if (defined & rows).any()
    }
    clean, noisy = _expected(mixture, edges, int(defined.sum()))
    return Spread(edges, is_exp, counts, clean, noisy, mixture, int((~defined).sum()))


def _edges(values: Array) -> Array:
    """Bins of an unbounded score."""
    if not len(values):
        return np.linspace(0, 1, BINS + 1)
    low, high = float(values.min()), float(values.max())
    if high - low <= MAX_WHOLE and (values == np.round(values)).all():
        return np.arange(low, high + 2) - 0.5
    low, high = np.percentile(values, ENDS)
    pad = max(high - low, abs(high) * 1e-6, 1e-6) / BINS
    return np.linspace(low - pad, high + pad, BINS + 1)


def _expected(mixture: ScoreMixture, edges: Array, rows: int) -> tuple[Array | None, Array | None]:
    """Rows that each component expects in the bins, the outermost with all beyond them; None without components."""
    if not mixture.clean_shape:
        return None, None
    found = []
    parts = ((mixture.clean_mean, mixture.clean_shape), (mixture.noisy_mean, mixture.noisy_shape))
    for weight, (mean, shape) in zip((1 - mixture.noise_rate, mixture.noise_rate), parts, strict=True):
        if mixture.kind == "beta":
            a = float(np.clip(mean, 1e-9, 1 - 1e-9)) * shape
            below = stats.beta.cdf(edges, a, shape - a)
        else:
            below = stats.norm.cdf(edges, mean, shape)
        below[[0, -1]] = 0, 1
        found.append(rows * weight * np.diff(below))
    return found[0], found[1]
