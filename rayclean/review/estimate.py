"""The noise rate of a table from a stratified sample of verified rows, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rayclean.decisions.entries import Sample
from rayclean.review.survey import Survey
from rayclean.schema import Array

Z = 1.959964  # of 95%


class Estimate(NamedTuple):
    """A share of wrong labels, and its interval of 95%."""

    rate: float
    low: float
    high: float


def stratified(rows: Array, verified: Array, wrong: Array, known: int = 0, known_wrong: int = 0) -> Estimate | None:
    """The stratified estimator, rate = (known_wrong + sum_h N_h m_h / n_h) / N; None without a row of each stratum.

    Its variance is sum_h (N_h / N)^2 (1 - n_h / N_h) p_h (1 - p_h) / n_h, with p_h = (m_h + 1/2) / (n_h + 1) [our
    choice]: m_h / n_h has no variance where no wrong label of a stratum was found, so that the interval of a nearly
    clean table held the rate in .4 to .9 of the samples.

    Args:
        rows: (H,) N_h, of the strata; at least 1.
        verified: (H,) n_h, drawn at random.
        wrong: (H,) m_h, those of them whose label is wrong.
        known: further rows of which everything is known.
        known_wrong: those of them whose label is wrong.
    """
    total = known + int(rows.sum())
    if not total or (verified == 0).any():
        return None
    rate = (known_wrong + float((rows * wrong / verified).sum())) / total
    share = (wrong + 0.5) / (verified + 1)
    variance = (rows / total) ** 2 * (1 - verified / rows) * share * (1 - share) / verified
    half = Z * float(np.sqrt(variance.sum()))
    return Estimate(rate, max(rate - half, 0.0), min(rate + half, 1.0))


def estimate(survey: Survey, is_wrong: Mapping[Sample, bool]) -> Estimate | None:
    """The noise rate of the table that a survey was drawn from; None while a stratum has no verified row.

    Args:
        survey: which rows were drawn.
        is_wrong: what is known of samples so far.
    """
    said = [(each.stratum, is_wrong[each.sample]) for each in survey.rows if each.sample in is_wrong]
    of_stratum, wrong = (np.array([each[i] for each in said], np.int64) for i in (0, 1))
    num = len(survey.strata)
    return stratified(
        np.array([each.rows for each in survey.strata], np.int64),
        np.bincount(of_stratum, minlength=num),
        np.bincount(of_stratum, weights=wrong, minlength=num),
        survey.known,
        survey.known_wrong,
    )
