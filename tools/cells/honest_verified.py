"""What a few verified rows add to what is said of all others: rows at random, and rows that `review --sample` proposes.

Proposed rows are those that the label is unsure of, so that what is left is surer than the table. Both are judged by
the same measure: of the rows left out each stands for as many as its stratum has; random rows are one stratum.

Letters: N rows, V verified rows, H strata.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow.dataset as ds

from rayclean.export.cut import caution_of
from rayclean.review.estimate import stratified
from rayclean.review.survey import draw_survey
from rayclean.schema import DROPPED, NO_LABEL, Array
from tools.cells.honest_data import Rows
from tools.cells.honest_figures import calibration_error, removed_figures
from tools.cells.honest_steps import Judged

VERIFIED = (100, 400)
VERIFIED_DRAWS = 20


class Looked(NamedTuple):
    """Rows that people look at.

    Attributes:
        at: (N,) bool, which.
        stratum: (N,) int64, of each row.
    """

    at: Array
    stratum: Array

    @property
    def sizes(self) -> Array:
        """(H,) rows of the strata."""
        return np.bincount(self.stratum)

    @property
    def drawn(self) -> Array:
        """(H,) those of them that are looked at."""
        return np.bincount(self.stratum[self.at], minlength=len(self.sizes))

    @property
    def weights(self) -> Array:
        """(N - V,) for how many rows each row left out stands; a stratum that is looked at as a whole has none."""
        left = np.maximum(self.sizes - self.drawn, 1)
        return np.asarray((self.sizes / left)[self.stratum[~self.at]])


Chooser: TypeAlias = Callable[[Judged, int, tuple[int, ...]], Looked]


def random_rows(judged: Judged, number: int, seed: tuple[int, ...]) -> Looked:
    """So many rows, each as likely as any other."""
    num_rows = judged.table.num_rows
    return Looked(np.random.default_rng(seed).permutation(num_rows) < number, np.zeros(num_rows, np.int64))


def proposed_rows(judged: Judged, number: int, seed: tuple[int, ...]) -> Looked:
    """The rows of `rayclean review --sample`, more of them where `label_score` is unsure."""
    table = judged.table
    names = [str(label) for label in range(int(np.max(table["given_label"].to_numpy())) + 1)]
    drawn = int(np.random.default_rng(seed).integers(2**31))
    survey = draw_survey(ds.dataset(table), number, "", names, drawn, lambda rows: rows.astype(np.uint64))
    at = np.zeros(table.num_rows, bool)
    at[[each.row for each in survey.rows]] = True
    lows = [each.low for each in survey.strata]  # strata are ranges, in the order of the scores
    return Looked(at, np.searchsorted(lows, judged.right, side="right") - 1)


CHOOSERS: dict[str, Chooser] = {"verified": random_rows, "proposed": proposed_rows}


def verified_figures(
    judge: Callable[[Array], Judged], rows: Rows, choose: Chooser, seed: int, num_draws: int
) -> dict[str, Any]:
    """By number of verified rows the medians, over draws of these, of the errors among all other rows.

    `sampled_rate_error` is that of the verified rows' own estimate of the noise rate of all rows, without any model.
    """
    before, found = judge(np.full(len(rows.labels), NO_LABEL)), {}
    for number in VERIFIED:
        each = [_errors(judge, rows, choose(before, number, (seed, number, draw))) for draw in range(num_draws)]
        medians = {name: _median([errors[name] for errors in each]) for name in each[0]}
        found[str(number)] = {"draws": num_draws, **medians}
    return found


def _errors(judge: Callable[[Array], Judged], rows: Rows, looked: Looked) -> dict[str, float | None]:
    """The errors of one draw."""
    truth = np.where(rows.truth < 0, DROPPED, rows.truth)
    judged = judge(np.where(looked.at, truth, NO_LABEL))
    right, clean, weights = judged.right[~looked.at], rows.clean[~looked.at], looked.weights
    wrong = np.bincount(looked.stratum[looked.at & ~rows.clean], minlength=len(looked.sizes))
    sampled = stratified(looked.sizes, looked.drawn, wrong)
    return {
        "calibration_error": calibration_error(right, clean, weights),
        "noise_rate_error": abs(float(np.average(clean - right, weights=weights))),
        "sampled_rate_error": None if sampled is None else abs(sampled.rate - float((~rows.clean).mean())),
        "removed_wrong": removed_figures(judged, rows.clean, caution_of(judged.summary))["wrong"],
    }


def _median(values: list[float | None]) -> float | None:
    """The median of those that there are."""
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None
